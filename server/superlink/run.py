"""A Flower run from the server's side: taking it, and the grid that reaches the nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

#: Seconds for which a SuperLink may be gone before the coordinator begins another run.
PATIENCE_S = 60.0
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


@contextmanager
def run_grid(address: str, secret: bytes) -> Iterator[Grid]:
    """The grid of the next run that a SuperLink has to give; the run ends with the block."""
    acquire = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE)
    with closing(_runtime(address, "SuperExec", acquire)) as superexec:
        while not (task := superexec.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))).token:
            time.sleep(0.2)
    grid = HttpGrid(runtime_api_address=address, insecure=True, token=task.token)
    grid._retry_invoker = _patience()
    with closing(_runtime(address, "flwr-serverapp", RuntimeTokenHttpInterceptor(task.token))) as runtime:
        heartbeat = HeartbeatSender(lambda: _beat(runtime))
        heartbeat.start()
        given = runtime.PullTaskInput(PullTaskInputRequest())
        context = context_from_proto(given.context)
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = context.node_id
        grid.set_run(run_from_proto(given.run))
        status = SubStatus.FAILED
        try:
            yield grid
            status = SubStatus.COMPLETED
        finally:
            done = PushTaskOutputRequest(context=context_to_proto(context), sub_status=status, details="")
            runtime.PushTaskOutput(done)
            heartbeat.stop()
            grid.close()


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
