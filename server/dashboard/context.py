"""What every route of the dashboard works with."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from server.dashboard.access import form_token
from server.dashboard.experts import WINDOW_ROUNDS, ExpertUse, expert_use
from server.dashboard.health import Doctor, Health, health
from server.dashboard.queries import Queries
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.settings import ServerPaths, ServerSettings


@dataclass
class Dashboard:
    """One server's data, and the questions to them. ``stopping`` ends the pages' event streams."""

    registry: Registry
    artifacts: Artifacts
    paths: ServerPaths
    settings: ServerSettings
    token: str
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.queries = Queries(self.registry.engine, self.registry.experiment)
        self.doctor = Doctor(self.queries, self.paths, self.settings)
        self.form_token = form_token(self.token)

    def expert_use(self) -> ExpertUse | None:
        """How the experts were used in the last rounds, None without statistics."""
        routing = self.queries.routing(WINDOW_ROUNDS)
        return expert_use(routing) if routing else None

    def health(self) -> Health:
        """The server's health now."""
        return health(self.queries, self.paths, self.settings)
