"""An experiment's read-only JSON API and its metrics.

Clients appear under their pseudonymous ids, never under an alias. How one client's clips were routed is no part of it,
and neither are sums over fewer than `FEWEST_CLIENTS` clients.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from mcoe_model.health import Health as WearableHealth
from server.attention import needs, reasons
from server.dashboard.attempts import Attempt, Verdict
from server.dashboard.context import Dashboard
from server.dashboard.experts import FEWEST_CLIENTS, ExpertUse
from server.dashboard.health import Health
from server.dashboard.metrics import MEDIA_TYPE, metrics_text
from server.dashboard.scores import VersionScores, version_scores
from server.doctor import Finding
from server.registry import TrialSummary, day_of, utc_now


@dataclass(frozen=True)
class FleetMember:
    """A client. ``rounds`` counts the rounds that asked it, ``accepted`` and ``rejected`` its replies.

    ``health`` is what it last said of itself, on ``health_day`` (since 1970), -1 where it does not know; ``needs``: why
    an operator should look.
    """

    id: str
    state: str
    last_seen: datetime.datetime | None
    examples: int | None
    client_version: str | None
    rounds: int
    accepted: int
    rejected: int
    health: WearableHealth | None
    health_day: int | None
    needs: Sequence[str]


@dataclass(frozen=True)
class RoundInFull:
    """One attempt and every client that it asked."""

    attempt: Attempt
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class RoundUse:
    """The experts' use in one round: None where it comes from too few clients. ``entropy`` in bits."""

    round: int
    clients: int
    entropy: float | None


@dataclass(frozen=True)
class ExpertSums:
    """Shares of the routed choices by expert over the last rounds; None where they come from too few clients."""

    clients: int
    fewest_clients: int
    shares: Sequence[float] | None
    dead: Sequence[int] | None
    drift_alarms: int
    rounds: Sequence[RoundUse]


@dataclass(frozen=True)
class HealthNow:
    """``findings`` are the doctor's, None before its first examination has ended."""

    now: Health
    findings: Sequence[Finding] | None


def api_routes(dashboard: Dashboard) -> APIRouter:
    """Every route that is not a page."""
    routes = APIRouter()
    registry, queries = dashboard.registry, dashboard.queries

    @routes.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Prometheus metrics."""
        said = metrics_text(
            queries.totals(),
            queries.open_attempt(),
            registry.last_published(),
            dashboard.expert_use(),
            dashboard.health(),
            [reasons(one, day_of(utc_now())) for one in registry.enrolled_health()],
        )
        return PlainTextResponse(said, media_type=MEDIA_TYPE)

    @routes.get("/api/v1/clients")
    def clients() -> list[FleetMember]:
        """Every client of the experiment."""
        rows = registry.clients()
        needed = needs(rows, day_of(utc_now()))
        return [
            FleetMember(
                row.id, row.state, row.last_seen, row.examples, row.client_version, row.rounds, row.accepted,
                row.rejected, row.health, row.health_day, needed.get(row.id, ()),
            )
            for row in rows
        ]  # fmt: skip

    @routes.get("/api/v1/rounds")
    def rounds(limit: Annotated[int, Query(ge=1, le=100)] = 25, before: int | None = None) -> list[Attempt]:
        """Attempts at rounds, newest first; ``before`` an id goes on where the last answer ended."""
        return queries.attempts(limit, before)

    @routes.get("/api/v1/rounds/{number}")
    def one_round(number: int) -> list[RoundInFull]:
        """Every attempt at one round, newest first, with what became of each client's reply."""
        return [RoundInFull(one, queries.verdicts(one.id)) for one in queries.attempts_at(number)]

    @routes.get("/api/v1/models")
    def models() -> list[VersionScores]:
        """Every version, oldest first, with what it scored on the operator's evaluation set."""
        return version_scores(registry.models(), dashboard.scores().by_sha256)

    @routes.get("/api/v1/trial")
    def trial() -> TrialSummary | None:
        """The model that is neither released nor held, and how far it is; null when there is none."""
        return registry.trial_summary()

    @routes.get("/api/v1/experts")
    def experts() -> ExpertSums | None:
        """How the experts were used in the last rounds, over all clients; null without statistics."""
        use = dashboard.expert_use()
        return _sums(use) if use else None

    @routes.get("/api/v1/health")
    def health() -> HealthNow:
        """Disk, databases, certificates, and what the doctor finds."""
        examined = dashboard.doctor.latest()
        return HealthNow(dashboard.health(), examined.findings if examined else None)

    return routes


def _sums(use: ExpertUse) -> ExpertSums:
    shown = len(use.by_client) >= FEWEST_CLIENTS
    return ExpertSums(
        len(use.by_client),
        FEWEST_CLIENTS,
        use.recent if shown else None,
        use.dead if shown else None,
        len(use.alarms),
        [
            RoundUse(number, clients, entropy if clients >= FEWEST_CLIENTS else None)
            for number, clients, entropy in zip(use.rounds, use.clients, use.entropy, strict=True)
        ],
    )
