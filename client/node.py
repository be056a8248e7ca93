"""The wearable's connection: Flower's SuperNode as a supervised child, and an executor that runs the installed app.

With `client.supernode`, the one place on the client's side that touches private modules of Flower, pinned to
flwr==1.41.0. Whatever code a server ships with a run is never unpacked or imported: tasks are handed to the ClientApp
that is installed here.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, constant
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from client.children import open_log
from client.radio import Radio
from mcoe_model.errors import for_log
from mcoe_model.files import write_bytes
from mcoe_model.workers import child_environment

#: What the SuperNode must find in its environment: it calls nobody but the server.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
#: Seconds between two starts of a SuperNode. Unless it hears otherwise, a server goes on believing for a minute that a
#: killed one is online and turns its successor away, so this is tried for longer than that.
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 15.0)
#: Seconds between two looks for a change of the fleet's authority.
REFRESH_S = 3600.0
#: Seconds between two looks for a task.
POLL_S = 0.2
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class Connection:
    """Whom to connect to, and as whom. ``address`` is host:port of the server."""

    address: str
    authority: Path
    key: Path
    folder: Path


class Node:
    """A SuperNode that is kept running until ``stopped`` is set, and the executor of its tasks.

    ``refresh`` looks whether the fleet changes its authority, and says whether the file of those was written anew; it
    is asked now and then, and whenever the SuperNode ends by itself, which may be since the server refuses it.
    ``radio`` says when the SuperNode may leave, and when it comes again; without one it stays.
    """

    def __init__(
        self,
        connection: Connection,
        app: ClientApp,
        stopped: threading.Event,
        refresh: Callable[[], bool] = lambda: False,
        radio: Radio | None = None,
    ) -> None:
        self._radio = radio
        self._refresh = refresh
        self._connection = connection
        self._app = app
        self._stopped = stopped
        self._secret = secrets.token_hex(32).encode()
        self._node_id: int | None = None
        self._connected = threading.Event()
        self._taking = threading.Lock()  # held while a task is taken, and while it is decided to take no more
        self._answered: float | None = None  # when the last task of this connection ended; None before the first
        self._works = False  # on a task

    def run(self) -> None:
        """Keep connected and run tasks, one at a time, until ``stopped``; a task that has begun is finished first."""
        secret_file = self._connection.folder / "superexec.secret"
        write_bytes(secret_file, self._secret)  # mode 0600, as every file that is written atomically
        port = _free_port()
        keeper = threading.Thread(target=self._keep_running, args=(port, secret_file))
        keeper.start()
        try:
            self._execute(f"127.0.0.1:{port}")
        finally:
            self._stopped.set()
            keeper.join()

    def _keep_running(self, port: int, secret_file: Path) -> None:
        """Start the SuperNode again whenever it ends, waiting longer each time; SIGTERM makes it leave at once."""
        command = [
            sys.executable, "-m", "client.supernode",
            "--superlink", self._connection.address,
            "--root-certificates", str(self._connection.authority),
            "--auth-supernode-private-key", str(self._connection.key),
            "--isolation", "process",
            "--superexec-auth-secret-file", str(secret_file),
            "--host", "127.0.0.1",
            "--port", str(port),
        ]  # fmt: skip
        environment = child_environment() | QUIET | {"FLWR_HOME": str(self._connection.folder / "flower")}
        starts, look = 0, time.monotonic() + REFRESH_S
        while not self._stopped.is_set():
            self._answered, sleeps = None, False
            if self._may_sleep():  # a gate has closed meanwhile
                self._sleep()
                continue
            with open_log(self._connection.folder / "supernode.log") as output:
                child = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
            log.info("SuperNode started (process %d)", child.pid)
            self._connected.set()
            while child.poll() is None and not self._stopped.wait(0.2):
                if time.monotonic() > look:
                    look = time.monotonic() + REFRESH_S
                    if self._refresh():  # it has read the authorities at its start
                        break
                if sleeps := self._may_sleep():
                    break
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(5)
                if child.poll() is None:
                    child.kill()
                    child.wait()
                if sleeps:
                    self._sleep()
                continue
            if child.returncode < 0:
                self._sign_off()
            else:
                self._refresh()
            pause = BACKOFF_S[min(starts, len(BACKOFF_S) - 1)]
            starts += 1
            log.warning("SuperNode ended with code %d; starting it again in %.0f s", child.returncode, pause)
            self._stopped.wait(pause)

    def _may_sleep(self) -> bool:
        """Whether nothing is to be done or sent until the next check-in; then no task is taken any more."""
        with self._taking:
            if self._radio is None or self._works:
                return False
            if not self._radio.may_sleep(None if self._answered is None else time.monotonic() - self._answered):
                return False
            self._connected.clear()
            return True

    def _sleep(self) -> None:
        """Wait for the next check-in, or for something new to send."""
        assert self._radio is not None
        done = "not reached" if self._answered is None else "checked in"
        log.info("%s; again in %.0f s", done, self._radio.seconds_left())
        while self._radio.seconds_left() > 0 and not self._stopped.wait(1.0):
            pass

    def _sign_off(self) -> None:
        """Say for a SuperNode that was killed that it is gone.

        The server would believe in it for a minute, turn its successor away and let what it was to answer wait.
        """
        if self._node_id is None:
            return
        try:
            key: Any = load_ssh_private_key(self._connection.key.read_bytes(), None)
            version, signed = RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())
            address, authority = self._connection.address, str(self._connection.authority)
            with FleetHttpClient.from_server_address(address, False, authority, [version, signed]) as client:
                client.DeactivateNode(DeactivateNodeRequest(node_id=self._node_id))
        except Exception as fault:  # then the minute passes
            log.info("the server did not hear that the SuperNode is gone: %s", fault)

    def _execute(self, address: str) -> None:
        """Take tasks from the SuperNode and hand them to the app; while there is no SuperNode, look again."""
        superexec = SuperExecAuthHttpInterceptor(master_secret=self._secret, protected_methods=_ACQUIRE)
        while not self._stopped.is_set():
            if not self._connected.wait(POLL_S):
                continue
            try:
                with self._taking, contextlib.closing(_runtime(address, "SuperExec", superexec, tries=1)) as client:
                    task = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
                    self._works = bool(task.token)
                if task.token:
                    try:
                        self._run_task(address, task.token)
                    finally:
                        self._answered, self._works = time.monotonic(), False
                    continue
            except Exception as fault:  # the SuperNode is gone or starts; what was trained is in the outbox
                log.debug("no task: %s", fault)
            self._stopped.wait(POLL_S)

    def _run_task(self, address: str, token: str) -> None:
        with _task(address, token) as client:
            try:
                message, context = _pull_input(client)
            except (ObjectPullError, httpx.HTTPStatusError) as fault:
                if _given_up(fault):
                    log.info("the SuperNode gave a message up: its sender was killed, or its run has ended")
                    return
                raise
            self._node_id = context.node_id
            status, details = SubStatus.COMPLETED, ""
            try:
                reply = self._app(message, context)
            except (Exception, SystemExit) as fault:  # a task that fails must not end the wearable's connection
                log.error("a task failed: %s", for_log(fault))
                status, details = SubStatus.FAILED, type(fault).__name__
                # What went wrong stays here: an exception's text may hold a path or a name.
                reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, details), reply_to=message)
            push_message(client, reply, context)
            push_task_output(client, context, status, details)


@contextlib.contextmanager
def _task(address: str, token: str) -> Iterator[RuntimeHttpClient]:
    """The interface of one task, with a heartbeat while it runs."""
    with contextlib.closing(_runtime(address, "flwr-clientapp", RuntimeTokenHttpInterceptor(token))) as client:
        heartbeat = HeartbeatSender(lambda: _beat(client))
        heartbeat.start()
        try:
            yield client
        finally:
            heartbeat.stop()


def _pull_input(client: RuntimeHttpClient) -> tuple[Message, Context]:
    """The task's message and context, as soon as the SuperNode has the message whole.

    Raises a fault that `_given_up` knows when the SuperNode has given the message up, and with it the task.
    """
    given = client.PullTaskInput(PullTaskInputRequest())
    context = context_from_proto(given.context)
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = context.node_id
    tree = _announced(client)
    node = FlowerNode(node_id=context.node_id)
    pull = make_pull_object_fn_protobuf(client.PullObject, node, context.run_id)
    confirm = make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, context.run_id)
    message = pull_and_inflate_object_from_tree(
        tree,
        pull,
        confirm,
        return_type=Message,
        max_time=None,
        max_tries_per_object=None,
        initial_backoff=0.05,
        backoff_cap=1.0,
    )
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message, context


def _given_up(fault: ObjectPullError | httpx.HTTPStatusError) -> bool:
    """Whether it says that a task's message is gone, or that the task is: its token counts no more."""
    return isinstance(fault, ObjectPullError) or fault.response.status_code == httpx.codes.UNAUTHORIZED


def _announced(client: RuntimeHttpClient) -> ObjectTree:
    """The parts of the task's message. A SuperNode makes a task before it stores the task's message."""
    while not (given := client.PullMessages(PullAppMessagesRequest())).message_object_trees:
        time.sleep(0.05)
    tree: ObjectTree = given.message_object_trees[0]
    return tree


def _beat(client: RuntimeHttpClient) -> bool:
    """Say that the task goes on. Flower's own function interrupts the process when it cannot be said."""
    with contextlib.suppress(httpx.HTTPError):
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True


def _runtime(address: str, component: str, interceptor: Any, tries: int = 5) -> RuntimeHttpClient:
    """An interface to the SuperNode, which is on this machine: there soon, or gone. Flower's own tries for ever."""
    retry = RetryInvoker(lambda: constant(0.5), httpx.TransportError, max_tries=tries, max_time=None)
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), interceptor],
        retry_invoker=retry,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
