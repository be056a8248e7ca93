"""A Flower grid in one process, or over a few worker processes: the same apps and messages without a network.

Every worker keeps one resident model and runs the ClientApp on one message after the other. One worker is a thread of
this process, so that the server judges a reply while the next client trains; more are processes, to which messages
travel as Flower's own bytes. Replies do not depend on which worker made them.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from typing import Any, cast

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
#: Seconds between two looks for replies: looking costs nothing here.
LOCAL_POLL = 0.002

Configuration = dict[str, Any]


class LocalGrid(Grid):
    """Node ids FIRST_NODE_ID, FIRST_NODE_ID + 1, ...: one node per entry of ``node_configs``.

    ``client_app`` is a reference ``module:name``, so that workers import it themselves. ``pool`` runs the messages in
    other processes; without one, a thread of this process runs them one after the other.
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
        self._thread = ThreadPoolExecutor(1)
        self._replies: dict[str, Future[Message] | Future[bytes]] = {}
        self._sent = 0
        identify_process(run_id=RUN_ID, node_id=SERVER_NODE_ID)

    def close(self) -> None:
        """Forget the messages that nobody has begun to answer; else this process would answer them before it ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

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
        reply = self._replies.pop(message_id).result()
        return message_from_bytes(reply) if isinstance(reply, bytes) else reply

    def _push(self, message: Message) -> str:
        self._sent += 1
        message_id = str(self._sent)
        assign_message_id(message, message_id)
        node_id = message.metadata.dst_node_id
        config = self._nodes[node_id]
        task = (self._client_app, node_id, config, self._run_config)
        if self._pool is None:
            self._replies[message_id] = self._thread.submit(_call, message, *task)
        else:
            content = cast(bytes, _AsBytes(message))  # which is what arrives
            self._replies[message_id] = self._pool.submit(_call_bytes, content, *task)
        return message_id


class _AsBytes:
    """A message that becomes Flower's bytes when a worker takes it; until then messages share their arrays."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (message_to_bytes(self._message),)


def _call(message: Message, client_app: str, node_id: int, config: Configuration, run_config: Configuration) -> Message:
    """Run the ClientApp on one message; an exception becomes an error reply, as on a SuperNode."""
    context = Context(RUN_ID, node_id, config, RecordDict(), run_config)
    try:
        return _load(client_app)(message, context)
    except (Exception, SystemExit) as fault:  # whatever a client's code does must not end the others' round
        return Message(Error(CLIENT_APP_RAISED, f"{type(fault).__name__}: {fault}"), reply_to=message)


def _call_bytes(
    content: bytes, client_app: str, node_id: int, config: Configuration, run_config: Configuration
) -> bytes:
    """`_call` in a worker process."""
    identify_process(run_id=RUN_ID, node_id=node_id)
    return message_to_bytes(_call(message_from_bytes(content), client_app, node_id, config, run_config))


def _load(client_app: str) -> ClientApp:
    module, _, name = client_app.partition(":")
    app = getattr(import_module(module), name)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{client_app} is not a ClientApp")
    return app

