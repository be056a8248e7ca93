"""The round under way, as it goes: what the page shows, and the events that keep it up to date."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from server.dashboard.attempts import Attempt, Verdict
from server.dashboard.queries import Queries
from server.registry import WaitingFor

#: Seconds between two looks at the registry for one open page.
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class LiveRound:
    """The attempt under way and its clients, by verdict."""

    attempt: Attempt
    awaited: tuple[Verdict, ...]
    accepted: tuple[Verdict, ...]
    rejected: tuple[Verdict, ...]


#: The round under way, or why there is none, where the coordinator has said so.
Live = LiveRound | WaitingFor | None


def live_round(queries: Queries) -> Live:
    """The round under way, or why there is none."""
    attempt = queries.open_attempt()
    if attempt is None:
        return queries.waiting()
    verdicts = queries.verdicts(attempt.id)
    return LiveRound(
        attempt,
        tuple(one for one in verdicts if one.accepted is None),
        tuple(one for one in verdicts if one.accepted),
        tuple(one for one in verdicts if one.accepted is False),
    )


async def changes(
    queries: Queries,
    live: Callable[[Live], str],
    history: Callable[[], str],
    stopping: threading.Event,
) -> AsyncIterator[ServerSentEvent]:
    """HTML for the page's parts ``live`` and ``history``: at once, then whenever they have changed, until stopping."""
    shown, stage, begun = None, None, False
    while not stopping.is_set():
        current = await run_in_threadpool(live_round, queries)
        if not begun or current != shown:
            yield ServerSentEvent(raw_data=live(current), event="live")
        reached = (current.attempt.id, current.attempt.state) if isinstance(current, LiveRound) else None
        if not begun or reached != stage:  # the history changes when a round opens, closes or ends
            yield ServerSentEvent(raw_data=await run_in_threadpool(history), event="history")
        shown, stage, begun = current, reached, True
        await asyncio.sleep(LOOK_EVERY_S)
