"""Sees in the registry what the webhook tells: rounds that ended, canaries that were stopped, alarms.

It looks from outside, so that no round ever waits for a webhook.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.dashboard.experts import WINDOW_ROUNDS, expert_use
from server.dashboard.queries import Queries
from server.dashboard.webhook import WebhookEvent
from server.registry import Registry, utc_now
from server.registry.models import CANARY, CANDIDATE, HELD, RETIRED

#: Seconds between two looks.
LOOK_EVERY_S = 2.0
#: Attempts looked at: more do not end between two looks.
_NEWEST = 8

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class _Seen:
    """What was there at a look: the last attempt that had ended, models by version, drifting clients, dead experts."""

    ended: int
    states: dict[int, str]
    drifting: frozenset[str]
    dead: frozenset[int]


class Watcher:
    """Compares each look at the registry with the one before. What happened before the first look is not told."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._queries = Queries(registry.engine, registry.experiment)
        self._seen: _Seen | None = None

    def look(self) -> Iterator[WebhookEvent]:
        """What happened since the last look, oldest first."""
        before, now = self._seen, utc_now()
        ended = self._queries.attempts(_NEWEST, ended=True)
        models = {model.version: model for model in self._registry.models()}
        canaries = self._registry.was_canary()
        newest = max((one.id for one in ended), default=0)
        if before and newest == before.ended:
            drifting, dead = before.drifting, before.dead
        else:
            drifting, dead = self._alarms()
        self._seen = _Seen(newest, {v: model.state for v, model in models.items()}, drifting, dead)
        if before is None:
            return
        for one in reversed(ended):
            if one.id > before.ended:
                yield WebhookEvent("round closed", self._registry.experiment, one.number, one.published_sha256, now)
        for version, model in models.items():
            was = before.states.get(version)
            unseen = version in canaries and was in (None, CANDIDATE)  # it began and ended between two looks
            if (was == CANARY or unseen) and model.state in (HELD, RETIRED):
                yield WebhookEvent("canary stopped", self._registry.experiment, None, model.sha256, now)
        if drifting - before.drifting or dead - before.dead:
            last = ended[0]
            yield WebhookEvent("alarm", self._registry.experiment, last.number, last.published_sha256, now)

    def _alarms(self) -> tuple[frozenset[str], frozenset[int]]:
        routing = self._queries.routing(WINDOW_ROUNDS)
        if routing is None:
            return frozenset(), frozenset()
        use = expert_use(routing)
        return frozenset(use.alarms), frozenset(use.dead)


def watch(registry: Registry, tell: Callable[[WebhookEvent], None], stopping: threading.Event) -> None:
    """Tell everything that happens until stopping."""
    watcher = Watcher(registry)
    while True:
        try:
            for event in watcher.look():
                tell(event)
        except Exception as fault:  # a database that is away comes back
            log.warning("the webhook's watcher could not look: %s", fault)
        if stopping.wait(LOOK_EVERY_S):
            return
