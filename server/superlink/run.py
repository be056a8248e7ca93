"""A Flower run from the server's side: holding one, over the death of the process that held it, and reaching its nodes.

A run lives as long as somebody shows the token of its task once a minute, whoever that is. So its holder keeps the
token in a file of its own user; the next process takes the run over with it, and pulls the replies to what the last one
sent. The file is gone when a run has ended as it should.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, ErrorCode, SubStatus
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE, TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from mcoe_model.files import read_json, write_json
from server.superlink.control import Control

#: Seconds for which a SuperLink may be gone before the coordinator begins another run.
PATIENCE_S = 60.0
#: Seconds without any part of a reply after which it counts as lost. Flower would wait for two hours.
STALLED_S = 60.0
#: Parts of a reply besides those that hold its tensors: the message, its records, its arrays.
FEW_PARTS = 64
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class Held:
    """A run and what it is held by: whoever has the token can send and read its messages."""

    run_id: int
    task_id: int
    node_id: int
    token: str = field(repr=False)


class RunGrid(HttpGrid):
    """The nodes of a run. No call waits for a reply whose parts are still on their way: it is given by a later one.

    Flower's own grid waits for all of them, while the other replies of a round lie there. ``largest`` says how many
    bytes a reply may have: the rest of a larger one is not pulled, and nothing of it stays in the SuperLink.
    """

    def __init__(
        self, address: str, held: Held, largest: Callable[[], int], stalled_s: float = STALLED_S
    ) -> None:
        super().__init__(runtime_api_address=address, insecure=True, token=held.token)
        self._retry_invoker = _patience()
        self._largest = largest
        self._stalled_s = stalled_s
        self._arriving: dict[str, _Arriving] = {}
        self.set_run(Run.create_empty(held.run_id))

    @property
    def run_id(self) -> int:
        return int(self.run.run_id)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that are there whole, and an error for each that is lost."""
        asked = list(message_ids)
        unheard = [message_id for message_id in asked if message_id not in self._arriving]
        if unheard:
            given = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unheard))
            for reply, tree in zip(given.messages_list, given.message_object_trees, strict=True):
                missing = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
                self._arriving[reply.metadata.reply_to_message_id] = _Arriving(reply.metadata.message_id, missing)
        found = (self._pull_parts(message_id) for message_id in asked if message_id in self._arriving)
        return [message for message in found if message is not None]

    def _pull_parts(self, message_id: str) -> Message | None:
        """Pull the parts of a reply that are there; the message once it has them all, None before."""
        reply = self._arriving[message_id]
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, self.run_id)
        largest = self._largest()
        if len(reply.missing) > FEW_PARTS + largest // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE:
            return self._refuse(message_id, f"reply has {len(reply.missing)} parts, which is too many")
        try:
            for part in list(reply.missing):
                with suppress(ObjectUnavailableError):
                    reply.parts[part] = pull(part)
                    reply.missing.remove(part)
                    reply.moved = time.monotonic()
                if sum(map(len, reply.parts.values())) > largest:
                    return self._refuse(message_id, f"reply is larger than {largest} bytes")
            if time.monotonic() - reply.moved > self._stalled_s:
                raise ObjectPullError(reply.missing[0], f"nothing arrived for {self._stalled_s:.0f} s")
        except ObjectPullError as fault:
            del self._arriving[message_id]
            return self._error(message_id, ErrorCode.MESSAGE_UNAVAILABLE, str(fault))
        if reply.missing:
            return None
        self._let_go(message_id)
        try:
            message = inflate_object_from_contents(reply.message_id, reply.parts)
        except Exception as fault:  # whatever a node sends must not end the others' round
            return self._error(message_id, ErrorCode.UNKNOWN, f"reply cannot be read: {fault}")
        if not isinstance(message, Message):
            return self._error(message_id, ErrorCode.UNKNOWN, "reply cannot be read: it is no message")
        message.metadata.__dict__["_message_id"] = reply.message_id
        return message

    def _refuse(self, message_id: str, reason: str) -> Message:
        """Let go of a reply that nobody wants whole; what its sender still sends of it is stored no more."""
        self._let_go(message_id)
        return self._error(message_id, ErrorCode.UNKNOWN, reason)

    def _let_go(self, message_id: str) -> None:
        """The SuperLink deletes the parts of a reply."""
        root = self._arriving.pop(message_id).message_id
        received = ConfirmMessageReceivedRequest(node=self.node, run_id=self.run_id, message_object_id=root)
        self._runtime_client.ConfirmMessageReceived(received)

    def _error(self, message_id: str, code: int, reason: str) -> Message:
        metadata = Metadata(
            run_id=self.run_id,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=message_id,
            created_at=time.time(),
        )
        return make_message(metadata=metadata, error=Error(code, reason))


@dataclass
class _Arriving:
    """A reply that was claimed: its parts that are there and those that are not; when the last one ``moved``."""

    message_id: str
    missing: list[str]
    parts: dict[str, bytes] = field(default_factory=dict)
    moved: float = field(default_factory=time.monotonic)


@contextmanager
def run_grid(
    address: str, secret: bytes, file: Path, largest: Callable[[], int], stalled_s: float = STALLED_S
) -> Iterator[RunGrid]:
    """The grid of the run that ``file`` tells of, if it lives; else of a new one. The run ends with the block.

    ``largest``: the bytes that a reply may have. Two processes must never do this with one file at a time.
    """
    held = _take_over(address, file) or _begin(address, secret, file)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = held.task_id, held.run_id, held.node_id
    grid = RunGrid(address, held, largest, stalled_s)
    with closing(_runtime(address, "flwr-serverapp", RuntimeTokenHttpInterceptor(held.token))) as runtime:
        heartbeat = HeartbeatSender(lambda: _beat(runtime))
        heartbeat.start()
        status = SubStatus.FAILED
        try:
            yield grid
            status = SubStatus.COMPLETED
        finally:
            heartbeat.stop()
            grid.close()
            runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
            file.unlink(missing_ok=True)


def _take_over(address: str, file: Path) -> Held | None:
    """The run of a process that was killed, when it still lives."""
    if not file.is_file():
        return None
    held = Held(**read_json(file))
    with closing(_runtime(address, "flwr-serverapp", RuntimeTokenHttpInterceptor(held.token))) as runtime:
        try:
            lives = runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except httpx.HTTPStatusError:  # its token is unknown now
            lives = False
    if not lives:
        log.warning("Flower run %d ended while nobody held it: its clients are asked again in a new one", held.run_id)
        return None
    log.info("Flower run %d goes on", held.run_id)
    return held


def _begin(address: str, secret: bytes, file: Path) -> Held:
    """A new run, whose task is ours, and the file that tells of it. Every run is as good as another."""
    with closing(Control(address)) as control:
        control.start_run()
    acquire = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE)
    with closing(_runtime(address, "SuperExec", acquire)) as superexec:
        while not (task := superexec.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))).token:
            time.sleep(0.2)
    with closing(_runtime(address, "flwr-serverapp", RuntimeTokenHttpInterceptor(task.token))) as runtime:
        given = runtime.PullTaskInput(PullTaskInputRequest())
    held = Held(given.run.run_id, given.task_id, given.context.node_id, task.token)
    write_json(file, asdict(held))  # mode 0600, as every file that is written atomically
    log.info("Flower run %d", held.run_id)
    return held


def _runtime(address: str, component: str, interceptor: Any) -> RuntimeHttpClient:
    interceptors = [RuntimeVersionHttpInterceptor(component_name=component), interceptor]
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=interceptors,
        retry_invoker=_patience(),
    )


def _patience() -> RetryInvoker:
    """Try again while a SuperLink restarts. Flower's own tries for ever, and interrupts the process at a 401."""
    return RetryInvoker(lambda: exponential(max_delay=4), httpx.TransportError, max_tries=None, max_time=PATIENCE_S)


def _beat(runtime: RuntimeHttpClient) -> bool:
    """Say that the run goes on; when it cannot be said, the next message will find out why."""
    with suppress(httpx.HTTPError):
        runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True
