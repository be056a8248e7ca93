"""Attempts at rounds, and what became of each client's reply. Nothing is written."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select

from mcoe_model.errors import DataMissing
from server.registry.replies import NO_REPLY
from server.registry.store import Store
from server.registry.tables import ABANDONED, CLOSED, OPEN, PUBLISHED, Member, Reply, Round


@dataclass(frozen=True)
class Verdict:
    """One client's part in one attempt at a round: ``accepted`` is None as long as nothing was judged."""

    client_id: str
    accepted: bool | None
    reason: str | None
    examples: int | None
    bytes_up: int
    seconds: float | None

    @property
    def late(self) -> bool:
        return self.accepted is False and self.reason == NO_REPLY


@dataclass(frozen=True)
class Attempt:
    """One attempt at a round, and how it went.

    ``late``: clients that were asked and did not answer in time; ``awaited``: those that still may. ``reasons`` counts
    the rejections by reason, the most frequent first. ``seconds`` from opening to closing, None while it is open.
    """

    id: int
    number: int
    attempt: int
    state: str
    base_sha256: str
    published_sha256: str | None
    reason: str | None
    opened: datetime.datetime
    seconds: float | None
    cohort: int
    accepted: int
    rejected: int
    late: int
    awaited: int
    bytes_down: int
    bytes_up: int
    reasons: tuple[tuple[str, int], ...]


class AttemptQueries(Store):
    """The dashboard's questions about rounds."""

    def attempts(self, limit: int, before: int | None = None, *, ended: bool = False) -> list[Attempt]:
        """Attempts at rounds, newest first: those with an id below ``before``, or the newest of all.

        ``ended``: only those that were published or abandoned.
        """
        where = [] if before is None else [Round.id < before]
        if ended:
            where.append(Round.state.in_([PUBLISHED, ABANDONED]))
        return self._attempts(*where, limit=limit)

    def attempts_at(self, number: int) -> list[Attempt]:
        """Every attempt at one round, newest first. Raises DataMissing for a round that never was."""
        found = self._attempts(Round.number == number)
        if not found:
            raise DataMissing(f"experiment {self.experiment} has no round {number}")
        return found

    def open_attempt(self) -> Attempt | None:
        """The attempt that is under way, if any."""
        return next(iter(self._attempts(Round.state.in_([OPEN, CLOSED]), limit=1)), None)

    def verdicts(self, round_id: int) -> list[Verdict]:
        """What became of every client of an attempt's cohort, by client id."""
        query = (
            select(Member.client_id, Reply.accepted, Reply.reason, Reply.examples, Reply.bytes_up, Reply.seconds)
            .outerjoin(Reply, and_(Reply.round_id == Member.round_id, Reply.client_id == Member.client_id))
            .where(Member.round_id == round_id)
            .order_by(Member.client_id)
        )
        with self._reading() as session:
            return [
                Verdict(client, accepted, reason, examples, bytes_up or 0, seconds)
                for client, accepted, reason, examples, bytes_up, seconds in session.execute(query)
            ]

    def _attempts(self, *where: ColumnElement[bool], limit: int | None = None) -> list[Attempt]:
        newest = select(Round).where(Round.experiment == self.experiment, *where).order_by(Round.id.desc()).limit(limit)
        with self._reading() as session:
            rows = list(session.scalars(newest))
            ids = [row.id for row in rows]
            members = select(Member.round_id, func.count()).where(Member.round_id.in_(ids)).group_by(Member.round_id)
            asked = {round_id: count for round_id, count in session.execute(members)}
            judged: dict[int, list[Any]] = {}
            query = (
                select(
                    Reply.round_id,
                    Reply.accepted,
                    Reply.reason,
                    func.count(),
                    func.sum(Reply.bytes_down),
                    func.sum(Reply.bytes_up),
                )
                .where(Reply.round_id.in_(ids))
                .group_by(Reply.round_id, Reply.accepted, Reply.reason)
            )
            for round_id, *counts in session.execute(query):
                judged.setdefault(round_id, []).append(counts)
            return [_attempt(row, asked.get(row.id, 0), judged.get(row.id, [])) for row in rows]


def _attempt(row: Round, cohort: int, judged: list[Any]) -> Attempt:
    accepted = sum(count for yes, _, count, _, _ in judged if yes)
    refused = Counter({reason or "": count for yes, reason, count, _, _ in judged if not yes})
    late = refused.pop(NO_REPLY, 0)
    silent = cohort - accepted - late - refused.total()
    awaited = silent if row.state == OPEN else 0
    return Attempt(
        row.id,
        row.number,
        row.attempt,
        row.state,
        row.base_sha256,
        row.published_sha256,
        row.reason,
        row.opened,
        (row.closed - row.opened).total_seconds() if row.closed else None,
        cohort,
        accepted,
        refused.total(),
        late + silent - awaited,
        awaited,
        sum(down for *_, down, _ in judged),
        sum(up for *_, up in judged),
        tuple(refused.most_common()),
    )
