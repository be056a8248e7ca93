"""What every route of the dashboard works with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.dashboard.access import form_token
from server.dashboard.experts import WINDOW_ROUNDS, ExpertUse, expert_use
from server.dashboard.health import Doctor, Health, health
from server.dashboard.queries import Queries
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.settings import ServerSettings


@dataclass(frozen=True)
class Scored:
    """Scores by model SHA-256 on the evaluation set ``name``, None when there is none, and all sets that there are."""

    name: str | None
    sets: tuple[str, ...]
    by_sha256: Mapping[str, Mapping[str, Any]]


@dataclass
class Dashboard:
    """One experiment's data, and the questions to them. ``stopping`` ends the pages' event streams.

    ``roots``: where the pages of each of the server's experiments begin, by its name; nothing for the only one.
    """

    registry: Registry
    artifacts: Artifacts
    paths: ServerPaths
    settings: ServerSettings
    token: str
    doctor: Doctor
    roots: Mapping[str, str]
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.queries = Queries(self.registry.engine, self.registry.experiment)
        self.form_token = form_token(self.token)

    @property
    def root(self) -> str:
        """Where this experiment's pages begin."""
        return self.roots[self.registry.experiment]

    def expert_use(self) -> ExpertUse | None:
        """How the experts were used in the last rounds, None without statistics."""
        routing = self.queries.routing(WINDOW_ROUNDS)
        return expert_use(routing) if routing else None

    def scores(self, wanted: str | None = None) -> Scored:
        """What models scored on the wanted evaluation set, else on the one that the newest version was scored on."""
        by_set = self.queries.scores()
        chosen = next((name for name in (wanted, *by_set) if name in by_set), None)
        return Scored(chosen, tuple(by_set), by_set[chosen] if chosen is not None else {})

    def health(self) -> Health:
        """The server's health now."""
        return health(self.queries, self.paths, self.settings)
