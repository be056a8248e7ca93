"""A client that is killed at a named moment of a round. For `test_training_killed.py`."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from toy_store import ToyStore, payload, task

import client.learner
from client.app import make_client_app
from client.outbox import Outbox
from mcoe_model.tensors import STYPE, pack
from server.superlink.messages import SERVER_NODE_ID, assign_message_id, identify_process

KEY = bytes(32)
#: Moments of a round at which a client can be killed.
MOMENTS = ("when it has trained", "before the update is kept", "while the update is written", "when it is kept")


#: What ends a process: SIGKILL from outside, SIGABRT from within, as C++ does.
DEADLY = (signal.SIGKILL, signal.SIGABRT)


def answer(folder: Path) -> tuple[str, int]:
    """The hash of the update that the client answers the first round's task with, and how often it trained for it."""
    trained, real = [], client.learner.fine_tune

    def counted(*arguments: Any, **named: Any) -> Any:
        trained.append(1)
        return real(*arguments, **named)

    client.learner.fine_tune = counted
    try:
        identify_process(run_id=1, node_id=SERVER_NODE_ID)
        data = pack(payload())
        model = ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})
        asked = ConfigRecord(task().to_record())  # type: ignore[arg-type]
        content = RecordDict({"model": model, "task": asked})
        message = Message(content, dst_node_id=1000, message_type="train", group_id="1")
        assign_message_id(message, "1")
        app = make_client_app(lambda context: ToyStore("client-a", 6), Outbox(folder, KEY))
        reply = app(message, Context(1, 1000, {}, RecordDict(), {}))
        return hashlib.sha256(reply.content.array_records["update"]["tensors"].data).hexdigest(), len(trained)
    finally:
        client.learner.fine_tune = real


def live_until(folder: Path, moment: str, number: int) -> None:
    """Answer the task, and be ended by the signal at the moment."""

    def die(*_: Any, **__: Any) -> Any:
        faulthandler.disable()  # pytest's would report a test that crashed
        os.kill(os.getpid(), number)

    if moment == "when it has trained":
        client.learner.make_update = die  # what was trained is in memory alone
    elif moment == "before the update is kept":
        Outbox.put = die  # type: ignore[method-assign]
    elif moment == "while the update is written":
        os.replace = die
    answer(folder)
    die()
