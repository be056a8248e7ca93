"""What is kept of a client and for how long: retention, the privacy budget, and being forgotten."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session

from mcoe_model.errors import DataMissing, DecisionNeeded
from server.registry.decisions import DecisionStore
from server.registry.health import day_of
from server.registry.models import CANARY, CANDIDATE, RELEASED, RETIRED, ModelRow, model_row
from server.registry.refusals import REFUSAL_KINDS
from server.registry.store import utc_now
from server.registry.tables import (
    CLOSED,
    OPEN,
    PUBLISHED,
    WITHDRAWN,
    AuditEvent,
    Base,
    BudgetRow,
    CanaryClientRow,
    CheckInRow,
    Client,
    ClientEvaluation,
    ConsentRow,
    HealthRow,
    Member,
    Model,
    Reply,
    Round,
    RouterRow,
    WaitingRow,
)

#: What becomes of the models that a forgotten client's updates went into.
Forgetting = Literal["keep", "rollback-before"]
FORGETTING: tuple[Forgetting, ...] = get_args(Forgetting)

#: What is deleted of a client, before its own row.
_OF_A_CLIENT: tuple[type[Base], ...] = (
    RouterRow,
    BudgetRow,
    Reply,
    Member,
    CheckInRow,
    CanaryClientRow,
    ClientEvaluation,
    ConsentRow,
    HealthRow,
)
#: Days that router statistics, check-ins and what clients said of their health are kept.
RETENTION_DAYS = 90


@dataclass(frozen=True)
class Pruned:
    """How many rows had passed the retention time."""

    router_statistics: int
    check_ins: int
    evaluations: int
    refusals: int
    health: int


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
class Outlook:
    """What forgetting a client would meet.

    ``descendants`` are the models that its updates went into, directly or through an ancestor, oldest first.
    ``before`` is the experiment's newest model that was ever released and is none of them.
    """

    descendants: tuple[ModelRow, ...]
    before: ModelRow | None


@dataclass(frozen=True)
class Receipt:
    """What forgetting a client did, and what it could not undo.

    ``deleted`` counts rows by table. ``descendants`` are as in `Outlook`: their bytes are not changed. ``choice`` says
    what was done about them, None when there are none; ``released`` is the version that a rollback made, None when the
    newest model is no descendant. ``pending`` were in rounds that go on without them, ``abandoned`` is the number of
    the round that a rollback ended, since it was based on a descendant. ``update_ids`` are all of its accepted updates:
    the caller removes what the spool holds of them.
    """

    client_id: str
    time: datetime.datetime
    deleted: Mapping[str, int]
    descendants: tuple[ModelRow, ...]
    choice: Forgetting | None
    released: int | None
    pending: tuple[PendingUpdate, ...]
    abandoned: int | None
    update_ids: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """The receipt as it is issued: plain values, and no more of the client than its pseudonym."""
        return {
            "client_id": self.client_id,
            "time": self.time.isoformat(timespec="seconds"),
            "deleted": dict(self.deleted),
            "descendants": [
                {"experiment": model.experiment, "version": model.version, "sha256": model.sha256}
                for model in self.descendants
            ],
            "choice": self.choice,
            "released_again": self.released,
            "rounds_without_it": [pending.number for pending in self.pending],
            "round_abandoned": self.abandoned,
        }


class PrivacyStore(DecisionStore):
    """What the registry keeps of a client, and how it lets go of it."""

    def prune(self, now: datetime.datetime, days: int = RETENTION_DAYS) -> Pruned:
        """Delete this experiment's router statistics of rounds that were opened, and check-ins, clients' evaluations
        of models, what they said of their health and rows of what was refused, before the last days.

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
                _delete(
                    session,
                    ClientEvaluation,
                    ClientEvaluation.received < before,
                    ClientEvaluation.client_id.in_(clients),
                ),
                _delete(
                    session,
                    AuditEvent,
                    AuditEvent.time < before,
                    AuditEvent.kind.in_(REFUSAL_KINDS),
                    AuditEvent.experiment == self.experiment,
                ),
                _delete(session, HealthRow, HealthRow.day < day_of(before), HealthRow.client_id.in_(clients)),
            )

    def record_budget(self, round_id: int, epsilons: Mapping[str, float], delta: float) -> None:
        """Store by client id the epsilon that it has spent up to and including this round; a repeat replaces it.

        An accountant computes it over all rounds of a client, since the epsilons of rounds do not simply add up.
        Nothing is stored of a client that was forgotten meanwhile.
        """
        with self._writing() as session:
            known = set(session.scalars(select(Client.id).where(Client.id.in_(epsilons))))
            for client, epsilon in sorted((client, epsilons[client]) for client in known):
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

    def rounds_paid(self, clients: Collection[str]) -> Mapping[str, int]:
        """In how many rounds each of these clients has spent privacy; 0 for one that is not known."""
        query = select(BudgetRow.client_id, func.count()).where(BudgetRow.client_id.in_(set(clients)))
        with self._reading() as session:
            found = {client: count for client, count in session.execute(query.group_by(BudgetRow.client_id))}
        return {client: found.get(client, 0) for client in clients}

    def outlook(self, client_id: str) -> Outlook:
        """What forgetting a client would meet."""
        with self._reading() as session:
            return self._outlook(session, client_id)

    def knows(self, client_id: str) -> bool:
        """Whether there is a client with this id, in whatever experiment."""
        with self._reading() as session:
            return session.get(Client, client_id) is not None

    def forget(
        self,
        client_id: str,
        choice: Forgetting | None = None,
        before_commit: Callable[[Receipt], None] = lambda receipt: None,
    ) -> Receipt:
        """Delete everything that is kept of a client, in one transaction, and blank its name in the audit events.

        ``rollback-before`` releases again the newest model that its updates did not go into, and ends the round that
        is based on one that they did. A client that is not known, or was forgotten before, gives an empty receipt.
        Raises DecisionNeeded when models descend from its updates and there is no choice, DataMissing when there is no
        model to go back to; then nothing was changed.
        """
        with self._writing() as session:
            pending = _pending(session, client_id)
            updates = select(Reply.update_id).where(Reply.client_id == client_id, Reply.accepted)
            update_ids = tuple(sorted(update_id for update_id in session.scalars(updates) if update_id is not None))
            outlook = self._outlook(session, client_id)
            if not outlook.descendants:
                choice = None
            elif choice is None:
                raise DecisionNeeded(decision_needed(client_id, outlook))
            released, abandoned = self._go_back(session, outlook) if choice == "rollback-before" else (None, None)
            deleted = {
                table.__tablename__: _delete(session, table, table.__table__.c.client_id == client_id)
                for table in _OF_A_CLIENT
            }
            deleted[Client.__tablename__] = _delete(session, Client, Client.id == client_id)
            _blank_filters(session, self.experiment, client_id)
            session.execute(update(AuditEvent).where(AuditEvent.client_id == client_id).values(client_id=None))
            said = WaitingRow.reason.contains(client_id, autoescape=True)  # the coordinator says it anew without it
            session.execute(delete(WaitingRow).where(WaitingRow.experiment == self.experiment, said))
            done = f"{sum(deleted.values())} rows deleted"
            if choice:
                done += f", {len(outlook.descendants)} models descend from its updates: {choice}"
            self._audit(session, "client forgotten", None, done)
            receipt = Receipt(
                client_id, utc_now(), deleted, outlook.descendants, choice, released, pending, abandoned, update_ids
            )
            before_commit(receipt)
            return receipt

    def to_unlearn(self) -> dict[str, tuple[int, ...]]:
        """Who has withdrawn and is not forgotten yet, and the versions that learned from them, where there are any.

        What becomes of those is decided by `forget`.
        """
        query = select(Client.id).where(Client.experiment == self.experiment, Client.state == WITHDRAWN)
        with self._reading() as session:
            found = {client: descendants_of(session, client) for client in session.scalars(query.order_by(Client.id))}
        return {client: tuple(model.version for model in models) for client, models in found.items() if models}

    def _outlook(self, session: Session, client_id: str) -> Outlook:
        descendants = descendants_of(session, client_id)
        query = select(Model).where(
            Model.experiment == self.experiment,
            Model.state.in_([RELEASED, RETIRED]),
            Model.sha256.not_in({model.sha256 for model in descendants}),
        )
        newest = query.order_by((Model.state == RELEASED).desc(), Model.version.desc())
        before = session.scalars(newest.limit(1)).first()
        return Outlook(descendants, model_row(before) if before else None)

    def _go_back(self, session: Session, outlook: Outlook) -> tuple[int | None, int | None]:
        """Roll back behind the descendants; the version that this makes, and the round that it ends, if any."""
        if outlook.before is None:
            raise DataMissing(
                "every model descends from this client's updates; import another first, or use --keep"
            )
        shaped = {model.sha256 for model in outlook.descendants}
        mine = (Model.experiment == self.experiment, Model.sha256.in_(shaped))
        for model in session.scalars(select(Model).where(*mine, Model.state.in_([CANDIDATE, CANARY]))):
            model.state = RETIRED
            self._unlearn(session, {model.sha256})
        released = None
        if self._newest(session) != outlook.before.sha256:
            released = self._release_again(session, outlook.before.version)
        reason = "its model descends from the updates of a client that was forgotten"
        return released, self._end_overtaken(session, reason)


def decision_needed(client_id: str, outlook: Outlook) -> str:
    """The line that asks what to do about the models that descend from a client's updates."""
    versions = ", ".join(str(model.version) for model in outlook.descendants)
    before = f"releases version {outlook.before.version} again" if outlook.before else "has no model to go back to"
    return (
        f"nothing was deleted: the updates of {client_id} went into version {versions}; say --rollback-before, which "
        f"{before}, or --keep, which leaves them as they are"
    )


def _blank_filters(session: Session, experiment: str, client_id: str) -> None:
    """Take a client's name out of the filters that rounds were opened with."""
    for found in session.scalars(select(Round).where(Round.experiment == experiment)):
        patterns = [pattern.strip() for pattern in str(found.settings.get("cohort_filter", "")).split(",")]
        if client_id in patterns:
            kept = ", ".join("(forgotten)" if pattern == client_id else pattern for pattern in patterns)
            found.settings = {**found.settings, "cohort_filter": kept}


def _delete(session: Session, table: type[Base], *where: object) -> int:
    result = session.execute(delete(table).where(*where))  # type: ignore[arg-type]
    assert isinstance(result, CursorResult)
    return result.rowcount


def descendants_of(session: Session, client_id: str) -> tuple[ModelRow, ...]:
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
    """The updates that are in no model yet."""
    query = (
        select(Round, Reply.update_id)
        .join(Reply, Reply.round_id == Round.id)
        .where(Reply.client_id == client_id, Reply.accepted, Round.state.in_([OPEN, CLOSED]))
        .order_by(Round.id)
    )
    return tuple(
        PendingUpdate(found.experiment, found.id, found.number, found.attempt, update_id, found.state == CLOSED)
        for found, update_id in session.execute(query)
        if update_id is not None
    )
