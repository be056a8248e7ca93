"""Flower's SuperNode as a process of its own, which ends with the wearable's program: ``python -m client.supernode``.

It differs from Flower's in three things:

- A message whose rest never comes is given up. Flower's own waits for hours, answers then for a task that its executor
  has long dropped, and is one answer behind from there on.
- The answer to a message whose run ends between its last part and the confirmation of it is awaited as any other.
  Flower's own does not, though the executor has the message, and is one answer behind, too.
- Heartbeats go on whatever a server answers to one. Flower's own end with the first answer that they do not know, and
  the node counts as absent for ever, though it goes on asking for messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flwr.supercore.heartbeat import HeartbeatFailure, HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError, pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode

from mcoe_model.workers import end_with_parent

#: Seconds without any new part of a message, while the server says that it has no more of it, after which the message
#: is given up: its sender was killed. A part that is slow on its way counts as coming.
STALLED_S = 30.0

_pull_and_store_message = start_client_internal._pull_and_store_message


def pull_or_give_up(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
    """The parts of a message by their ids.

    Raises ObjectPullError when its sender was killed or its run has ended: the SuperNode then forgets the message and
    its task. It does not when it hears of the end of a run in Flower's own way.
    """
    arrived = time.monotonic()

    def pull(object_id: str) -> bytes:
        nonlocal arrived
        try:
            content = pull_object_fn(object_id)
        except ObjectUnavailableError as fault:
            if time.monotonic() - arrived > STALLED_S:
                raise ObjectPullError(object_id, f"the server had no more for {STALLED_S:.0f} s") from fault
            raise
        except RunNotRunningException as fault:
            raise ObjectPullError(object_id, "its run has ended") from fault
        arrived = time.monotonic()
        return content

    return pull_objects(object_ids, pull, max_tries_per_object=None, max_time=None, backoff_cap=2.0)


def store_message(*, confirm_message_received: Callable[[int, str], None], **others: Any) -> int | None:
    """Flower's next message, stored for the executor: the id of its run, or None where there is none."""

    def confirm(run_id: int, object_id: str) -> None:
        with suppress(RunNotRunningException):  # its answer is awaited all the same, and dropped when it is sent
            confirm_message_received(run_id, object_id)

    return _pull_and_store_message(confirm_message_received=confirm, **others)


class SteadyHeartbeat(HeartbeatSender):
    """Flower's heartbeats, of which one that fails in any way is tried again."""

    def _heartbeat(self) -> None:
        try:
            super()._heartbeat()
        except Exception as fault:
            raise HeartbeatFailure from fault


if __name__ == "__main__":
    end_with_parent()
    start_client_internal.pull_objects = pull_or_give_up  # type: ignore[assignment, attr-defined]
    start_client_internal._pull_and_store_message = store_message  # type: ignore[assignment]
    fleet_http_connection.HeartbeatSender = SteadyHeartbeat  # type: ignore[attr-defined]
    flower_supernode()
