"""A Flower grid in one process, or over a few worker processes: the same apps and messages without a network.

Every worker keeps one resident model and runs the ClientApp on one message after the other. With one worker that happens
in this process; with more, messages travel to them as Flower's own bytes. Replies do not depend on which worker made them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from server.superlink import (
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

Configuration = dict[str, Any]


class LocalGrid(Grid):
    """Node ids FIRST_NODE_ID, FIRST_NODE_ID + 1, ...: one node per entry of ``node_configs``.

    ``client_app`` is a reference ``module:name``, so that workers import it themselves. ``pool`` runs the messages in
    other processes; without one they run here, when a reply is asked for.
    """

    def __init__(
        self,
        client_app: str,
        node_configs: list[Configuration],
        run_config: Configuration,
        pool: ProcessPoolExecutor | None = None,
    ) -> None:
        self._client_app = client_app
        self._nodes = {FIRST_NODE_ID + index: config for index, config in enumerate(node_configs)}
        self._run_config = run_config
        self._pool = pool
        self._sent = 0
        self._replies: dict[str, Callable[[], Message | None]] = {}
        identify_process(run_id=RUN_ID, node_id=SERVER_NODE_ID)

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
        arrived = []
        for message_id in message_ids:
            reply = self._replies[message_id]()
            if reply is not None:
                del self._replies[message_id]
                arrived.append(reply)
        return arrived

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send and wait for every reply; local nodes always answer, so ``timeout`` has no effect."""
        for message_id in self.push_messages(messages):
            reply = None
            while reply is None:
                reply = self._replies[message_id]()
            del self._replies[message_id]
            yield reply

    def _push(self, message: Message) -> str:
        self._sent += 1
        message_id = str(self._sent)
        assign_message_id(message, message_id)
        node_id = message.metadata.dst_node_id
        config = self._nodes[node_id]
        if self._pool is None:
            self._replies[message_id] = lambda: _call(self._client_app, message, node_id, config, self._run_config)
        else:
            content = message_to_bytes(message)
            future = self._pool.submit(_call_bytes, self._client_app, content, node_id, config, self._run_config)
            self._replies[message_id] = lambda: _reply_if_done(future)
        return message_id


def _reply_if_done(future: Future[bytes]) -> Message | None:
    return message_from_bytes(future.result()) if future.done() else None


def _call(client_app: str, message: Message, node_id: int, config: Configuration, run_config: Configuration) -> Message:
    """Run the ClientApp on one message; an exception becomes an error reply, as on a SuperNode."""
    context = Context(RUN_ID, node_id, config, RecordDict(), run_config)
    try:
        return _load(client_app)(message, context)
    except Exception as fault:  # whatever a client's code raises must not end the others' round
        return Message(Error(CLIENT_APP_RAISED, f"{type(fault).__name__}: {fault}"), reply_to=message)


def _call_bytes(
    client_app: str, content: bytes, node_id: int, config: Configuration, run_config: Configuration
) -> bytes:
    """`_call` in a worker process."""
    identify_process(run_id=RUN_ID, node_id=node_id)
    return message_to_bytes(_call(client_app, message_from_bytes(content), node_id, config, run_config))


def _load(client_app: str) -> ClientApp:
    module, _, name = client_app.partition(":")
    app = getattr(import_module(module), name)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{client_app} is not a ClientApp")
    return app

