"""A Flower grid over worker processes of this machine: the same apps and messages without a network.

Every worker keeps one resident model and runs the ClientApp on one message after the other, while this process judges
the replies that came before. Messages travel as Flower's own bytes, in files that live as long as the message, since
a pipe takes ten times as long; replies do not depend on which worker made them. A single worker is a process too: as a
thread beside the server it would wait for Python's lock on every tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from server.superlink.messages import (
    SERVER_NODE_ID,
    Run,
    assign_message_id,
    empty_run,
    identify_process,
    message_from_bytes,
    message_to_bytes,
)

#: Error code of a reply for a client whose app raised: Flower's own for that.
CLIENT_APP_RAISED = 2
RUN_ID = 1
FIRST_NODE_ID = 1000
#: Seconds between two looks for replies: looking costs nothing here.
LOCAL_POLL = 0.002

Configuration = dict[str, Any]


class LocalGrid(Grid):
    """Node ids FIRST_NODE_ID, FIRST_NODE_ID + 1, ...: one node per entry of ``node_configs``.

    ``client_app`` is a reference ``module:name``, which the workers of ``pool`` import.
    """

    def __init__(
        self,
        client_app: str,
        node_configs: list[Configuration],
        run_config: Configuration,
        pool: ProcessPoolExecutor,
    ) -> None:
        self._client_app = client_app
        self._nodes = {FIRST_NODE_ID + index: config for index, config in enumerate(node_configs)}
        self._run_config = run_config
        self._pool = pool
        self._replies: dict[str, Future[None]] = {}
        self._folder = TemporaryDirectory(prefix="mcoe-grid-")
        self.mail = Path(self._folder.name)
        self._sent = 0
        identify_process(run_id=RUN_ID, node_id=SERVER_NODE_ID)

    def close(self) -> None:
        """Forget the messages that nobody has begun to answer; the workers would answer them before they end."""
        waited_for = [reply for reply in self._replies.values() if not reply.cancel()]
        wait(waited_for)
        self._folder.cleanup()

    def set_run(self, run: Run) -> None:
        """The local grid has one run."""

    @property
    def run(self) -> Run:
        """The one run of this grid."""
        return empty_run(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message, as `Message` makes it."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Every node."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages for their nodes; returns their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there."""
        return [self._take(message_id) for message_id in message_ids if self._replies[message_id].done()]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send and wait for every reply; local nodes always answer, so ``timeout`` has no effect."""
        return [self._take(message_id) for message_id in self.push_messages(messages)]

    def _take(self, message_id: str) -> Message:
        self._replies.pop(message_id).result()
        reply = self._letter(message_id)
        try:
            return message_from_bytes(reply.read_bytes())
        finally:
            reply.unlink()

    def _letter(self, message_id: str) -> Path:
        return self.mail / message_id

    def _push(self, message: Message) -> str:
        self._sent += 1
        message_id = str(self._sent)
        assign_message_id(message, message_id)
        node_id = message.metadata.dst_node_id
        letter = cast(Path, _Letter(message, self._letter(message_id)))  # which is what arrives
        self._replies[message_id] = self._pool.submit(
            _call, letter, self._client_app, node_id, self._nodes[node_id], self._run_config
        )
        return message_id


class _Letter:
    """A message that is written to its file when a worker is about to take it; until then messages share arrays."""

    def __init__(self, message: Message, path: Path) -> None:
        self._message = message
        self._path = path

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        self._path.write_bytes(message_to_bytes(self._message))
        return Path, (str(self._path),)


def _call(letter: Path, client_app: str, node_id: int, config: Configuration, run_config: Configuration) -> None:
    """Run the ClientApp on one message; its reply takes the message's place in the file.

    An exception becomes an error reply, as on a SuperNode.
    """
    identify_process(run_id=RUN_ID, node_id=node_id)
    message = message_from_bytes(letter.read_bytes())
    context = Context(RUN_ID, node_id, config, RecordDict(), run_config)
    try:
        reply = _load(client_app)(message, context)
    except (Exception, SystemExit) as fault:  # whatever a client's code does must not end the others' round
        reply = Message(Error(CLIENT_APP_RAISED, f"{type(fault).__name__}: {fault}"), reply_to=message)
    letter.write_bytes(message_to_bytes(reply))


def _load(client_app: str) -> ClientApp:
    module, _, name = client_app.partition(":")
    app = getattr(import_module(module), name)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{client_app} is not a ClientApp")
    return app

