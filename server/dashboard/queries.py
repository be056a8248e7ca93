"""What the dashboard asks of the registry beyond the registry's own questions. Nothing is written.

Every query is bounded by a page, by a window of rounds, or by an index, so that a fleet of a thousand clients with a
million rows of router statistics is shown as fast as a small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, func, select, text

from server.dashboard.attempts import AttemptQueries
from server.registry.openings import OpeningStore
from server.registry.replies import NO_REPLY
from server.registry.tables import (
    ABANDONED,
    PUBLISHED,
    Client,
    Evaluation,
    Model,
    Reply,
    Round,
    RouterRow,
)


@dataclass(frozen=True)
class Routing:
    """Routed choices of the last published rounds, newest first.

    ``last`` and ``recent`` (C, E): counts by client and expert in the newest round and over all of ``rounds``.
    ``by_round`` (R, E): counts by round and expert; ``clients_by_round`` (R,) how many clients they come from.
    A client without statistics in the newest round has zeros there.
    """

    rounds: tuple[int, ...]
    clients: tuple[str, ...]
    last: NDArray[np.int64]
    recent: NDArray[np.int64]
    by_round: NDArray[np.int64]
    clients_by_round: NDArray[np.int64]


@dataclass(frozen=True)
class Totals:
    """Counts over all time, by state or verdict."""

    clients: dict[str, int]
    rounds: dict[str, int]
    replies: dict[str, int]
    bytes_down: int
    bytes_up: int


class Queries(AttemptQueries, OpeningStore):
    """The dashboard's questions to the registry of one experiment."""

    def aliases(self) -> dict[str, str]:
        """The operator's words for clients, by client id."""
        query = select(Client.id, Client.alias).where(Client.experiment == self.experiment, Client.alias.is_not(None))
        with self._reading() as session:
            return {client: alias for client, alias in session.execute(query) if alias}

    def scores(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What the experiment's models scored: by evaluation set, that of the newest version first, then by SHA-256."""
        query = select(Evaluation).join(Model, Model.sha256 == Evaluation.model_sha256)
        query = query.where(Model.experiment == self.experiment)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        with self._reading() as session:
            for row in session.scalars(query.order_by(Model.version.desc(), Evaluation.evaluation_set)):
                found.setdefault(row.evaluation_set, {})[row.model_sha256] = row.scores
        return found

    def routing(self, rounds: int) -> Routing | None:
        """How clips were routed in the last published rounds; None when no statistics are kept of them."""
        newest = (
            select(Round.id, Round.number)
            .where(Round.experiment == self.experiment, Round.state == PUBLISHED)
            .order_by(Round.number.desc())
            .limit(rounds)
        )
        with self._reading() as session:
            numbers = {round_id: number for round_id, number in session.execute(newest)}
            last_expert = (
                select(RouterRow.round_id, func.max(RouterRow.expert))
                .where(RouterRow.round_id.in_(numbers))
                .group_by(RouterRow.round_id)
            )
            held = {round_id: expert for round_id, expert in session.execute(last_expert)}
            if not held:
                return None
            experts = range(1 + max(held.values()))
            # One pass in the order of the primary key; sums by expert would sort all rows first.
            counts = [func.sum(case((RouterRow.expert == expert, RouterRow.routed), else_=0)) for expert in experts]
            by_client = (
                select(RouterRow.round_id, RouterRow.client_id, *counts)
                .where(RouterRow.round_id.in_(held))
                .group_by(RouterRow.round_id, RouterRow.client_id)
            )
            rows = [tuple(row) for row in session.execute(by_client)]
        kept = [round_id for round_id in numbers if round_id in held]
        clients = tuple(sorted({row[1] for row in rows}))
        rounds_at, clients_at = ({key: place for place, key in enumerate(keys)} for keys in (kept, clients))
        whose = [rounds_at[row[0]] for row in rows], [clients_at[row[1]] for row in rows]
        table = np.zeros((len(kept), len(clients), len(experts)), np.int64)
        table[whose] = [row[2:] for row in rows]
        return Routing(
            tuple(numbers[round_id] for round_id in kept),
            clients,
            table[0],
            table.sum(axis=0),
            table.sum(axis=1),
            np.bincount(whose[0], minlength=len(kept)),
        )

    def totals(self) -> Totals:
        """Counts for the metrics."""
        mine = Round.experiment == self.experiment
        late = Reply.reason == NO_REPLY
        judged = (
            select(Reply.accepted, late, func.count(), func.sum(Reply.bytes_down), func.sum(Reply.bytes_up))
            .join(Round, Round.id == Reply.round_id)
            .where(mine)
            .group_by(Reply.accepted, late)
        )
        states = select(Client.state, func.count()).where(Client.experiment == self.experiment).group_by(Client.state)
        replies = {"accepted": 0, "rejected": 0, "late": 0}
        down = up = 0
        with self._reading() as session:
            clients = {state: count for state, count in session.execute(states)}
            ended = {
                state: count
                for state, count in session.execute(select(Round.state, func.count()).where(mine).group_by(Round.state))
            }
            for accepted, was_late, count, bytes_down, bytes_up in session.execute(judged):
                replies["accepted" if accepted else "late" if was_late else "rejected"] += count
                down, up = down + bytes_down, up + bytes_up
        return Totals(clients, {PUBLISHED: 0, ABANDONED: 0} | ended, replies, down, up)

    def database_bytes(self) -> int:
        """How large the registry's database is."""
        sizes = {
            "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            "postgresql": "SELECT pg_database_size(current_database())",
        }
        with self._reading() as session:
            return int(session.scalar(text(sizes[self.engine.dialect.name])) or 0)
