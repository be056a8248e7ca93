"""What an operator asks about the past: one query each."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import func, select

from mcoe_model.errors import DataMissing
from mcoe_model.router_statistics import RouterStatistics
from server.registry.replies import statistics_by_client
from server.registry.store import Store
from server.registry.tables import PUBLISHED, Model, Reply, Round, RouterRow


@dataclass(frozen=True)
class Rejection:
    """Why a reply was rejected in one attempt at a round."""

    attempt: int
    reason: str
    received: datetime.datetime


@dataclass(frozen=True)
class RoundCost:
    """What a round cost over all its attempts: bytes of tensors down to the clients and up from them.

    ``open_seconds``: from opening to closing, summed over the attempts that have closed. ``publish_seconds``: from
    closing to publishing, None while it is not published.
    """

    number: int
    attempts: int
    bytes_down: int
    bytes_up: int
    open_seconds: float
    publish_seconds: float | None


class QuestionStore(Store):
    """Questions to the registry."""

    def shaped_by(self, sha256: str) -> dict[str, tuple[int, ...]]:
        """Which clients shaped this model: the numbers of the rounds, by client id, in which an accepted update of the
        client went into the model or one of its ancestors. Empty for a model that no round made."""
        lineage = select(Model.sha256, Model.parent_sha256).where(Model.sha256 == sha256).cte(recursive=True)
        lineage = lineage.union(
            select(Model.sha256, Model.parent_sha256).join(lineage, Model.sha256 == lineage.c.parent_sha256)
        )
        query = (
            select(Reply.client_id, Round.number)
            .join(Round, Round.id == Reply.round_id)
            .where(Reply.accepted, Round.state == PUBLISHED)
            .where(Round.published_sha256.in_(select(lineage.c.sha256)))
            .order_by(Reply.client_id, Round.number)
        )
        found: dict[str, tuple[int, ...]] = {}
        with self._reading() as session:
            for client, number in session.execute(query):
                found[client] = (*found.get(client, ()), number)
        return found

    def expert_use(self, client_id: str) -> dict[int, RouterStatistics]:
        """Which experts a client used over time: its router statistics by number of the published round."""
        query = (
            select(Round.number, RouterRow)
            .join(Round, Round.id == RouterRow.round_id)
            .where(RouterRow.client_id == client_id, Round.state == PUBLISHED)
            .order_by(Round.number)
        )
        rows: dict[int, list[RouterRow]] = {}
        with self._reading() as session:
            for number, row in session.execute(query):
                rows.setdefault(number, []).append(row)
            return {number: statistics_by_client(found)[client_id] for number, found in rows.items()}

    def why_rejected(self, client_id: str, round_number: int) -> list[Rejection]:
        """Why this client's replies were rejected in the attempts at a round, the first attempt first."""
        query = (
            select(Round.attempt, Reply.reason, Reply.received)
            .join(Round, Round.id == Reply.round_id)
            .where(Round.experiment == self.experiment, Round.number == round_number)
            .where(Reply.client_id == client_id, ~Reply.accepted)
            .order_by(Round.attempt)
        )
        with self._reading() as session:
            return [Rejection(attempt, reason or "", time) for attempt, reason, time in session.execute(query)]

    def round_cost(self, number: int) -> RoundCost:
        """What a round cost in bytes and seconds. Raises DataMissing for a round that never was."""
        query = (
            select(
                Round.opened,
                Round.closed,
                Round.published,
                func.coalesce(func.sum(Reply.bytes_down), 0),
                func.coalesce(func.sum(Reply.bytes_up), 0),
            )
            .outerjoin(Reply, Reply.round_id == Round.id)
            .where(Round.experiment == self.experiment, Round.number == number)
            .group_by(Round.id)
            .order_by(Round.attempt)
        )
        with self._reading() as session:
            rows = list(session.execute(query))
        if not rows:
            raise DataMissing(f"experiment {self.experiment} has no round {number}")
        closed, published = rows[-1][1:3]
        return RoundCost(
            number,
            len(rows),
            sum(int(row[3]) for row in rows),
            sum(int(row[4]) for row in rows),
            sum((row[1] - row[0]).total_seconds() for row in rows if row[1]),
            (published - closed).total_seconds() if published and closed else None,
        )
