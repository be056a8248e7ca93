"""The way of a new model: what clients report of a candidate, who runs a canary, and what was decided."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.protocol import CheckIn, EvaluateReport, Offer
from server.lifecycle import CanaryClient
from server.registry.models import CANARY, CANDIDATE, HELD, ModelRow, ModelState, ModelStore, model_row
from server.registry.openings import OpeningStore
from server.registry.store import utc_now
from server.registry.tables import (
    ENROLLED,
    AuditEvent,
    CanaryClientRow,
    Client,
    ClientEvaluation,
    Member,
    Model,
    Round,
    TrialRow,
)


@dataclass(frozen=True)
class Trial:
    """A model on its way. ``reports`` of clients that compared it with its parent, ``clients`` that it is offered to,
    as long as these are enrolled.

    ``share`` to ``ends`` are None before it is a canary.
    """

    model: ModelRow
    says: str
    reports: tuple[EvaluateReport, ...]
    share: float | None
    check_ins: int | None
    started: datetime.datetime | None
    ends: datetime.datetime | None
    clients: tuple[CanaryClient, ...]


@dataclass(frozen=True)
class TrialSummary:
    """A trial as it is shown. ``awaited`` are the clients that a canary is offered to and that do not run it."""

    version: int
    state: ModelState
    sha256: str
    says: str
    reports: int
    share: float | None
    clients: int
    running: int
    check_ins: int
    check_ins_needed: int | None
    refusals: int
    started: datetime.datetime | None
    ends: datetime.datetime | None
    awaited: tuple[str, ...]

    def in_words(self) -> str:
        """How far a canary is."""
        return (
            f"offered to {self.clients} clients ({100 * (self.share or 0):.0f} %), {self.running} run it; "
            f"{self.check_ins} of {self.check_ins_needed} check-ins, {self.refusals} refusals"
        )


class TrialStore(ModelStore, OpeningStore):
    """The registry's models that are not decided."""

    def trial(self) -> Trial | None:
        """The oldest model of the experiment that is a candidate or a canary, if any."""
        query = select(Model).where(Model.experiment == self.experiment, Model.state.in_([CANDIDATE, CANARY]))
        with self._reading() as session:
            model = session.scalars(query.order_by(Model.version).limit(1)).first()
            if model is None:
                return None
            row = session.get(TrialRow, model.id) or TrialRow(says="")
            heard = select(CanaryClientRow).join(Client, Client.id == CanaryClientRow.client_id)
            heard = heard.where(CanaryClientRow.model_id == model.id, Client.state == ENROLLED)
            reports = select(ClientEvaluation).join(Client, Client.id == ClientEvaluation.client_id)
            reports = reports.where(ClientEvaluation.model_id == model.id, Client.state == ENROLLED)
            return Trial(
                model_row(model),
                row.says,
                tuple(
                    EvaluateReport(one.client_id, model.sha256, one.examples, one.correct, one.parent_correct)
                    for one in session.scalars(reports.order_by(ClientEvaluation.client_id))
                ),
                row.share,
                row.check_ins,
                row.started,
                row.ends,
                tuple(
                    CanaryClient(one.client_id, one.check_ins, one.refusal, one.went_back)
                    for one in session.scalars(heard.order_by(CanaryClientRow.client_id))
                ),
            )

    def trial_summary(self) -> TrialSummary | None:
        """The model that is on its way, as it is shown to the operator."""
        trial = self.trial()
        if trial is None:
            return None
        return TrialSummary(
            trial.model.version,
            trial.model.state,
            trial.model.sha256,
            trial.says or "it is to be examined",
            len(trial.reports),
            trial.share,
            len(trial.clients),
            sum(client.check_ins > 0 for client in trial.clients),
            sum(client.check_ins for client in trial.clients),
            trial.check_ins,
            sum(client.refusal is not None for client in trial.clients),
            trial.started,
            trial.ends,
            tuple(client.client_id for client in trial.clients if not client.check_ins),
        )

    def trial_notes(self) -> dict[int, str]:
        """What is stored of each version's trial: what it waits for, or why it was decided."""
        query = select(Model.version, TrialRow.says).join(TrialRow, TrialRow.model_id == Model.id)
        query = query.where(Model.experiment == self.experiment)
        with self._reading() as session:
            return {version: says for version, says in session.execute(query)}

    def was_canary(self) -> frozenset[int]:
        """The versions that have been a canary."""
        query = select(Model.version).join(TrialRow, TrialRow.model_id == Model.id)
        query = query.where(Model.experiment == self.experiment, TrialRow.started.is_not(None))
        with self._reading() as session:
            return frozenset(session.scalars(query))

    def say_of_trial(self, version: int, says: str) -> None:
        """Store what an undecided model waits for."""
        with self._writing() as session:
            self._trial_row(session, self._find(session, version)).says = says

    def record_report(self, version: int, report: EvaluateReport) -> None:
        """Store what a client reports of a candidate.

        Nothing changes for a model that is decided, for a second report, and for a client that was forgotten meanwhile.
        """
        with self._writing() as session:
            model = self._find(session, version)
            known = session.get(Client, report.client_id) is not None
            there = session.get(ClientEvaluation, (model.id, report.client_id)) is not None
            if model.state == CANDIDATE and known and not there:
                session.add(
                    ClientEvaluation(
                        model_id=model.id,
                        client_id=report.client_id,
                        examples=report.examples,
                        correct=report.correct,
                        parent_correct=report.parent_correct,
                        received=utc_now(),
                    )
                )

    def begin_canary(
        self, version: int, clients: Collection[str], share: float, check_ins: int, ends: datetime.datetime
    ) -> bool:
        """Make a candidate a canary, offered to these clients. False when the operator has decided meanwhile."""
        with self._writing() as session:
            model = self._find(session, version)
            if model.state != CANDIDATE:
                return False
            model.state = CANARY
            row = self._trial_row(session, model)
            row.share, row.check_ins, row.started, row.ends = share, check_ins, utc_now(), ends
            row.says = f"0 of {check_ins} check-ins"
            self._add_clients(session, model, clients)
            self._audit(session, "model canary", None, f"{model.sha256}: offered to {len(clients)} clients")
            return True

    def add_canary_clients(self, version: int, clients: Collection[str]) -> None:
        """Offer a canary to these clients too."""
        with self._writing() as session:
            self._add_clients(session, self._find(session, version), clients)

    def decide(self, version: int, before: ModelState, after: ModelState, reason: str) -> bool:
        """Move a model on unless it is no longer in the state ``before``, since the operator has decided meanwhile."""
        with self._writing() as session:
            model = self._find(session, version)
            if model.state != before:
                return False
            model.state = after
            if after == HELD:
                self._unlearn(session, {model.sha256})
            self._trial_row(session, model).says = reason
            self._audit(session, f"model {after}", None, f"{model.sha256}: {reason}")
            return True

    def offer(self, client_id: str) -> Offer | None:
        """The model that a client should run: a canary that is offered to it, else the newest released one."""
        query = select(Model.sha256).join(CanaryClientRow, CanaryClientRow.model_id == Model.id)
        query = query.where(Model.experiment == self.experiment, Model.state == CANARY)
        query = query.where(CanaryClientRow.client_id == client_id, CanaryClientRow.refusal.is_(None))
        with self._reading() as session:
            canary = session.scalars(query).first()
        if canary:
            return Offer(canary, canary=True)
        newest = self.newest_model()
        return Offer(newest) if newest else None

    def seen_clients(self, since: datetime.datetime) -> tuple[str, ...]:
        """The enrolled clients that have checked in since then, by id."""
        query = select(Client.id).where(Client.experiment == self.experiment, Client.state == ENROLLED)
        with self._reading() as session:
            return tuple(session.scalars(query.where(Client.last_seen >= since).order_by(Client.id)))

    def asked_for(self, sha256: str) -> frozenset[str]:
        """The cohort of the round that made a model."""
        query = select(Member.client_id).join(Round, Round.id == Member.round_id)
        query = query.where(Round.experiment == self.experiment, Round.published_sha256 == sha256)
        with self._reading() as session:
            return frozenset(session.scalars(query))

    def _trial_row(self, session: Session, model: Model) -> TrialRow:
        row = session.get(TrialRow, model.id)
        if row is None:
            row = TrialRow(model_id=model.id, says="")
            session.add(row)
        return row

    def _add_clients(self, session: Session, model: Model, clients: Collection[str]) -> None:
        for client in sorted(clients):
            known = session.get(Client, client) is not None
            if known and session.get(CanaryClientRow, (model.id, client)) is None:
                session.add(CanaryClientRow(model_id=model.id, client_id=client, check_ins=0, went_back=False))


def hear_canary(session: Session, experiment: str, check_in: CheckIn) -> None:
    """Note what a check-in says of a canary that its client was offered: part of the check-in's transaction."""
    query = select(CanaryClientRow, Model.sha256).join(Model, Model.id == CanaryClientRow.model_id)
    query = query.where(Model.experiment == experiment, Model.state == CANARY)
    for row, sha256 in session.execute(query.where(CanaryClientRow.client_id == check_in.client_id)):
        if check_in.refused == sha256:
            if row.refusal is None:
                row.refusal = check_in.refusal
                session.add(
                    AuditEvent(
                        experiment=experiment,
                        time=utc_now(),
                        kind="canary refused",
                        client_id=check_in.client_id,
                        detail=f"{sha256}: {check_in.refusal}",
                    )
                )
        elif check_in.runs == sha256:
            row.check_ins += 1
        elif row.check_ins:
            row.went_back = True
