"""Rounds: open -> closed -> published, or abandoned."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from server.registry.clients import enrolled_of
from server.registry.coarse import coarsen
from server.registry.models import HELD, RELEASED, ModelState, ModelStore
from server.registry.openings import OpeningStore
from server.registry.replies import ReplyStore, statistics_by_client
from server.registry.store import utc_now
from server.registry.tables import (
    ABANDONED,
    CLOSED,
    ENROLLED,
    OPEN,
    PUBLISHED,
    REPORTED,
    Client,
    Member,
    Reply,
    Round,
    RouterRow,
)


@dataclass(frozen=True)
class RoundRow:
    """One round as stored."""

    id: int
    number: int
    attempt: int
    state: str
    base_sha256: str
    published_sha256: str | None
    norm_bound: float | None
    moments_sha256: str | None
    settings: dict[str, Any]
    reason: str | None
    opened: datetime.datetime
    cohort: tuple[str, ...]

    @property
    def spool_name(self) -> str:
        """The name of the folder in the spool that holds its accepted updates."""
        return f"round-{self.number}-{self.attempt}"


class RoundStore(ModelStore, ReplyStore, OpeningStore):
    """The registry's rounds."""

    def open_round(
        self,
        base_sha256: str,
        cohort: Sequence[str],
        settings: dict[str, Any],
        norm_bound: float | None,
        moments: str | None = None,
    ) -> RoundRow:
        """Open the next round: the number after the last published one, one more attempt if that was tried before.

        Who has left the fleet since the cohort was chosen is not in it.
        """
        with self._writing() as session:
            number = self._last_published(session) + 1
            tried = session.scalar(
                select(func.count()).where(Round.experiment == self.experiment, Round.number == number)
            )
            opened = Round(
                experiment=self.experiment,
                number=number,
                attempt=(tried or 0) + 1,
                state=OPEN,
                base_sha256=base_sha256,
                settings=settings,
                norm_bound=norm_bound,
                moments_sha256=moments,
                opened=utc_now(),
            )
            session.add(opened)
            session.flush()
            there = sorted(enrolled_of(session, self.experiment).intersection(cohort))
            session.add_all(Member(round_id=opened.id, client_id=client) for client in there)
            self._opened(session, opened.id)
            session.flush()
            return self._row(session, opened)

    def unfinished_round(self) -> RoundRow | None:
        """The round that is open or closed but not published, if any."""
        with self._reading() as session:
            query = select(Round).where(Round.experiment == self.experiment, Round.state.in_([OPEN, CLOSED]))
            found = session.scalars(query).first()
            return self._row(session, found) if found else None

    def published_round(self, number: int) -> RoundRow | None:
        """The attempt of a round that was published, if any was."""
        with self._reading() as session:
            query = select(Round).where(
                Round.experiment == self.experiment, Round.number == number, Round.state == PUBLISHED
            )
            found = session.scalars(query).first()
            return self._row(session, found) if found else None

    def rounds(self) -> list[RoundRow]:
        """Every round of the experiment, oldest first."""
        with self._reading() as session:
            mine = Round.experiment == self.experiment
            cohorts: dict[int, list[str]] = {}
            members = select(Member.round_id, Member.client_id).join(Round, Round.id == Member.round_id).where(mine)
            for round_id, client in session.execute(members):
                cohorts.setdefault(round_id, []).append(client)
            query = select(Round).where(mine).order_by(Round.id)
            return [_row(found, cohorts.get(found.id, [])) for found in session.scalars(query)]

    def last_published(self) -> int:
        """The number of the last published round, 0 before the first."""
        with self._reading() as session:
            return self._last_published(session)

    def failed_attempts(self) -> int:
        """How often the next round was tried and abandoned."""
        with self._reading() as session:
            number = self._last_published(session) + 1
            query = select(func.count()).where(
                Round.experiment == self.experiment, Round.number == number, Round.state == ABANDONED
            )
            return session.scalar(query) or 0

    def waited(self) -> dict[str, int]:
        """Published rounds since each client was last asked, by client id; all of them for one that never was."""
        last = select(Member.client_id, func.max(Round.number).label("number")).join(Round, Round.id == Member.round_id)
        last = last.where(Round.experiment == self.experiment).group_by(Member.client_id)
        with self._reading() as session:
            now = self._last_published(session)
            asked = {client: number for client, number in session.execute(last)}
            known = session.scalars(select(Client.id).where(Client.experiment == self.experiment))
            return {client: max(0, now - asked.get(client, 0)) for client in known}

    def round(self, round_id: int) -> RoundRow:
        """A round as it is now: others may have ended it, or taken a client out of it."""
        with self._reading() as session:
            return self._row(session, session.get_one(Round, round_id))

    def is_open(self, round_id: int) -> bool:
        """Whether a round still takes replies."""
        with self._reading() as session:
            return session.get_one(Round, round_id).state == OPEN

    def awaited(self, round_id: int) -> tuple[str, ...]:
        """The enrolled clients of a round's cohort whose reply has not been judged; nobody once the round is closed."""
        heard = select(Reply.client_id).where(Reply.round_id == round_id)
        query = (
            select(Member.client_id)
            .join(Round, Round.id == Member.round_id)
            .join(Client, Client.id == Member.client_id)
            .where(Round.id == round_id, Round.state == OPEN, Client.state == ENROLLED, Member.client_id.not_in(heard))
        )
        with self._reading() as session:
            return tuple(session.scalars(query.order_by(Member.client_id)))

    def close_round(self, round_id: int) -> None:
        """Take no more replies. Nothing changes for a round that others have ended."""
        with self._writing() as session:
            found = session.get_one(Round, round_id)
            if found.state == OPEN:
                found.state, found.closed = CLOSED, utc_now()

    def abandon_round(self, round_id: int, reason: str) -> None:
        """End a round without a model. Nothing changes for a round that others have ended."""
        with self._writing() as session:
            found = session.get_one(Round, round_id)
            if found.state in (OPEN, CLOSED):
                self._abandon(session, found, reason)

    def publish_round(
        self,
        round_id: int,
        sha256: str,
        generation: str,
        state: ModelState = RELEASED,
        moments: str | None = None,
        updates: Sequence[str] | None = None,
    ) -> bool:
        """Record the round's model, whose artifact and moments exist, and that the round is done: one transaction.

        ``updates`` are the ids of what it was made of. False, with nothing stored, when the accepted updates are others
        by now, since a client was forgotten, or when the round was ended meanwhile.
        """
        with self._writing() as session:
            found = session.get_one(Round, round_id)
            accepted = select(Reply.update_id).where(Reply.round_id == round_id, Reply.accepted)
            changed = updates is not None and set(session.scalars(accepted)) != set(updates)
            if changed or found.state not in (OPEN, CLOSED):
                return False
            self._add_version(session, sha256, found.base_sha256, generation, state, moments)
            found.state, found.published_sha256, found.published = PUBLISHED, sha256, utc_now()
            if state != HELD:
                self._learned(session, round_id)
            self._over(session, round_id)
            return True

    def _abandon(self, session: Session, found: Round, reason: str) -> None:
        found.state, found.closed, found.reason = ABANDONED, utc_now(), reason
        self._over(session, found.id)

    def _over(self, session: Session, round_id: int) -> None:
        """Nothing is aggregated of this round any more: keep of its clients as little as was asked."""
        if self.private:
            session.execute(delete(RouterRow).where(RouterRow.round_id == round_id))
            blank = update(Reply).where(Reply.round_id == round_id).values(dict.fromkeys(REPORTED))
            session.execute(blank)
            return
        if not self.coarse:
            return
        rows = session.scalars(select(RouterRow).where(RouterRow.round_id == round_id))
        kept = [
            {"round_id": round_id, "client_id": client, "expert": expert, "routed": routed, "gate_mass": mass}
            for client, exact in statistics_by_client(rows).items()
            for binned in [coarsen(exact)]
            for expert, (routed, mass) in enumerate(zip(binned.routed, binned.gate_mass, strict=True))
        ]
        if kept:
            session.execute(update(RouterRow), kept)

    def _last_published(self, session: Session) -> int:
        query = select(func.max(Round.number)).where(Round.experiment == self.experiment, Round.state == PUBLISHED)
        return session.scalar(query) or 0

    def _row(self, session: Session, found: Round) -> RoundRow:
        query = select(Member.client_id).where(Member.round_id == found.id)
        return _row(found, session.scalars(query))


def _row(found: Round, cohort: Iterable[str]) -> RoundRow:
    return RoundRow(
        found.id,
        found.number,
        found.attempt,
        found.state,
        found.base_sha256,
        found.published_sha256,
        found.norm_bound,
        found.moments_sha256,
        found.settings,
        found.reason,
        found.opened,
        tuple(sorted(cohort)),
    )
