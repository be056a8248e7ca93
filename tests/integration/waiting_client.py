"""A client that trains and then waits with its reply until a file is there. `python waiting_client.py DIR FILE`.

It writes a line for each train message that it gets, and one when it has trained.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from client.app import make_client_app
from client.enrolment import ClientPaths, download_model, read_membership
from client.folder_store import FolderStore
from client.node import Connection, Node
from client.outbox import Outbox


def main(folder: Path, gate: Path) -> None:
    paths = ClientPaths(folder)
    membership = read_membership(paths)
    model = download_model(paths, membership.address)
    store = FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, model)
    inner = make_client_app(lambda context: store, Outbox(paths.outbox, bytes(32)))
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        assert message.metadata.message_type == MessageType.TRAIN
        number = message.content["task"]["round_number"]  # type: ignore[index]
        print(f"asked {number}", flush=True)
        reply = inner(message, context)
        print(f"trained {number}", flush=True)
        while not gate.exists():
            time.sleep(0.1)
        return reply

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    Node(Connection(membership.address, paths.authority, paths.key, paths.folder), app, stopped).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
