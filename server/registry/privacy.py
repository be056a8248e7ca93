"""What is kept of a client and for how long: retention, the privacy budget, and being forgotten."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from server.registry.models import ModelRow, model_row
from server.registry.store import Store, utc_now
from server.registry.tables import (
    CLOSED,
    OPEN,
    PUBLISHED,
    AuditEvent,
    Base,
    BudgetRow,
    CheckInRow,
    Client,
    Member,
    Model,
    Reply,
    Round,
    RouterRow,
)

#: Days that router statistics and check-ins are kept.
RETENTION_DAYS = 90


@dataclass(frozen=True)
class Pruned:
    """How many rows had passed the retention time."""

    router_statistics: int
    check_ins: int


@dataclass(frozen=True)
class Budget:
    """Privacy spent by a client: over ``rounds`` rounds its updates are (epsilon, delta)-differentially private."""

    rounds: int
    epsilon: float
    delta: float


@dataclass(frozen=True)
class PendingUpdate:
    """A forgotten client's accepted update in a round that is not published; its file is still in the spool.

    ``closed``: the round is being aggregated, which must begin again without this update.
    """

    experiment: str
    round_id: int
    number: int
    attempt: int
    update_id: str
    closed: bool


@dataclass(frozen=True)
class Receipt:
    """What forgetting a client did, and what it could not undo.

    ``deleted`` counts rows by table. ``descendants`` are the models that its updates went into, directly or through an
    ancestor, oldest first: they are not changed. ``pending`` is left for the caller to remove from the spool.
    """

    client_id: str
    time: datetime.datetime
    deleted: Mapping[str, int]
    descendants: tuple[ModelRow, ...]
    pending: tuple[PendingUpdate, ...]


class PrivacyStore(Store):
    """What the registry keeps of a client, and how it lets go of it."""

    def prune(self, now: datetime.datetime, days: int = RETENTION_DAYS) -> Pruned:
        """Delete this experiment's router statistics of rounds that were opened, and check-ins, before the last days.

        The rounds stay, and so do the statistics of a round that is not finished.
        """
        before = now - datetime.timedelta(days=days)
        old_rounds = select(Round.id).where(
            Round.experiment == self.experiment, Round.opened < before, Round.state.not_in([OPEN, CLOSED])
        )
        clients = select(Client.id).where(Client.experiment == self.experiment)
        with self._writing() as session:
            return Pruned(
                _delete(session, RouterRow, RouterRow.round_id.in_(old_rounds)),
                _delete(session, CheckInRow, CheckInRow.time < before, CheckInRow.client_id.in_(clients)),
            )

    def record_budget(self, round_id: int, epsilons: Mapping[str, float], delta: float) -> None:
        """Store by client id the epsilon that it has spent up to and including this round; a repeat replaces it.

        An accountant computes it over all rounds of a client, since the epsilons of rounds do not simply add up.
        """
        with self._writing() as session:
            for client, epsilon in sorted(epsilons.items()):
                session.merge(BudgetRow(round_id=round_id, client_id=client, epsilon=epsilon, delta=delta))

    def budget_recorded(self, round_id: int) -> bool:
        """Whether a round's epsilons are stored."""
        with self._reading() as session:
            query = select(BudgetRow.client_id).where(BudgetRow.round_id == round_id)
            return session.scalars(query).first() is not None

    def spent(self, client_id: str) -> Budget:
        """The privacy that a client has spent; zeros before its first round."""
        query = select(BudgetRow).where(BudgetRow.client_id == client_id).order_by(BudgetRow.round_id)
        with self._reading() as session:
            rows = list(session.scalars(query))
        return Budget(len(rows), rows[-1].epsilon, rows[-1].delta) if rows else Budget(0, 0.0, 0.0)

    def forget(self, client_id: str) -> Receipt:
        """Delete everything that is kept of a client, in one transaction, and blank its name in the audit events.

        It refuses nothing: a client that is not known, or was forgotten before, gives an empty receipt.
        """
        with self._writing() as session:
            session.get(Client, client_id, with_for_update=True)  # no reply of it can be recorded from here on
            pending = _pending(session, client_id)
            descendants = _descendants(session, client_id)
            deleted = {
                table.__tablename__: _delete(session, table, table.client_id == client_id)
                for table in (RouterRow, BudgetRow, Reply, Member, CheckInRow)
            }
            deleted[Client.__tablename__] = _delete(session, Client, Client.id == client_id)
            session.execute(update(AuditEvent).where(AuditEvent.client_id == client_id).values(client_id=None))
            self._audit(session, "client forgotten", None, f"{sum(deleted.values())} rows deleted")
            return Receipt(client_id, utc_now(), deleted, descendants, pending)


def _delete(session: Session, table: type[Base], *where: object) -> int:
    result = session.execute(delete(table).where(*where))  # type: ignore[arg-type]
    assert isinstance(result, CursorResult)
    return result.rowcount


def _descendants(session: Session, client_id: str) -> tuple[ModelRow, ...]:
    """The models that a client's accepted updates went into, and those made from them, in whatever experiment."""
    direct = (
        select(Round.published_sha256.label("sha256"))
        .join(Reply, Reply.round_id == Round.id)
        .where(Reply.client_id == client_id, Reply.accepted, Round.state == PUBLISHED)
        .cte(recursive=True)
    )
    made = direct.union(select(Model.sha256).join(direct, Model.parent_sha256 == direct.c.sha256))
    query = select(Model).where(Model.sha256.in_(select(made.c.sha256))).order_by(Model.id)
    return tuple(model_row(model) for model in session.scalars(query))


def _pending(session: Session, client_id: str) -> tuple[PendingUpdate, ...]:
    """The updates that are in no model yet. Their rounds are locked, so that none is published meanwhile."""
    query = (
        select(Round, Reply.update_id)
        .join(Reply, Reply.round_id == Round.id)
        .where(Reply.client_id == client_id, Reply.accepted, Round.state.in_([OPEN, CLOSED]))
        .order_by(Round.id)
        .with_for_update(of=Round)
    )
    return tuple(
        PendingUpdate(found.experiment, found.id, found.number, found.attempt, update_id, found.state == CLOSED)
        for found, update_id in session.execute(query)
        if update_id is not None
    )
