"""What the opening of rounds needs: the operator's requests, the time of the last one, who has learned its clips."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from server.registry.store import Store, utc_now
from server.registry.tables import Client, Reply, Round, RoundRequest, WaitingRow


@dataclass(frozen=True)
class WaitingFor:
    """Why no round is open, as the coordinator last said, and since when."""

    since: datetime.datetime
    reason: str


class OpeningStore(Store):
    """What decides when an experiment's next round opens."""

    def request_round(self) -> bool:
        """Ask for a round, whatever the schedule. False when one was asked for and has not opened since."""
        with self._writing() as session:
            if self._pending(session):
                return False
            session.add(RoundRequest(experiment=self.experiment, time=utc_now()))
            self._audit(session, "round requested", None)
            return True

    def round_requested(self) -> bool:
        """Whether a round was asked for that has not opened."""
        with self._reading() as session:
            return self._pending(session)

    def last_opened(self) -> datetime.datetime | None:
        """When a round was last opened, or None before the first."""
        query = select(Round.opened).where(Round.experiment == self.experiment).order_by(Round.id.desc()).limit(1)
        with self._reading() as session:
            return session.scalars(query).first()

    def nothing_new(self, rounds: int) -> frozenset[str]:
        """The clients whose clips, by their number the same ever since, went into so many models.

        Those that were held, or that the experiment went back behind, do not count.
        """
        query = select(Client.id).where(Client.experiment == self.experiment, Client.learned_rounds >= rounds)
        with self._reading() as session:
            return frozenset(session.scalars(query))

    def say_waiting(self, reason: str) -> None:
        """Note why no round is open; opening one ends it. A repeat changes nothing."""
        with self._writing() as session:
            said = session.get(WaitingRow, self.experiment)
            if said is None or said.reason != reason:
                session.merge(WaitingRow(experiment=self.experiment, since=utc_now(), reason=reason))

    def waiting(self) -> WaitingFor | None:
        """Why no round is open, None while one is or before anybody said so."""
        with self._reading() as session:
            said = session.get(WaitingRow, self.experiment)
            return WaitingFor(said.since, said.reason) if said else None

    def _pending(self, session: Session) -> bool:
        query = select(func.count()).where(
            RoundRequest.experiment == self.experiment, RoundRequest.round_id.is_(None)
        )
        return bool(session.scalar(query))

    def _opened(self, session: Session, round_id: int) -> None:
        """A round answers what was asked for, and nobody waits any more."""
        asked = RoundRequest.experiment == self.experiment, RoundRequest.round_id.is_(None)
        session.execute(update(RoundRequest).where(*asked).values(round_id=round_id))
        session.execute(delete(WaitingRow).where(WaitingRow.experiment == self.experiment))

    def _learned(self, session: Session, round_id: int) -> None:
        """The clips of this round's clients have gone into one more model."""
        taken = select(Reply.client_id).where(Reply.round_id == round_id, Reply.accepted)
        more = update(Client).where(Client.id.in_(taken)).values(learned_rounds=Client.learned_rounds + 1)
        session.execute(more, execution_options={"synchronize_session": False})

    def _unlearn(self, session: Session, made: Collection[str]) -> None:
        """What went into these models counts as learned no more; who has other clips by now is asked once too often."""
        rounds = select(Round.id).where(Round.experiment == self.experiment, Round.published_sha256.in_(made))
        went = select(func.count()).where(Reply.client_id == Client.id, Reply.accepted, Reply.round_id.in_(rounds))
        left = Client.learned_rounds - went.scalar_subquery()
        learned = update(Client).where(Client.experiment == self.experiment, Client.learned_rounds > 0)
        less = learned.values(learned_rounds=case((left > 0, left), else_=0))
        session.execute(less, execution_options={"synchronize_session": False})
