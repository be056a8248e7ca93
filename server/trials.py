"""Takes a new model on its way: asks clients to evaluate it, offers a canary, and does what `server.lifecycle` decides.

Everything that was heard is in the registry before a decision follows from it, and a decision is one transaction that
changes nothing when the operator was faster. So a process that is killed at any point goes on with the same model. A
client that errs or says what cannot be costs its own report only.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.model_file import tensors_sha256
from mcoe_model.protocol import EvaluateReport, EvaluateTask, ProtocolError
from mcoe_model.update import TrainMode, payload_names, specs_of
from server.lifecycle import (
    Decision,
    Failed,
    Passed,
    ReleasePolicy,
    Undecided,
    canary_clients,
    judge_canary,
    judge_reports,
    whom_to_ask,
)
from server.presence import Presence, packed, record
from server.registry import ModelRow, ModelState, Registry, Trial, utc_now
from server.registry.artifacts import Artifacts
from server.registry.models import CANARY, CANDIDATE, HELD, RELEASED
from server.superlink.messages import is_lost

#: Seconds after which a client whose report was none may be asked for one again.
ASK_AGAIN_S = 600.0
#: The same for one that has gone, or whose message or report was lost: another one is asked meanwhile.
LOST_AGAIN_S = 60.0
#: Least seconds between two questions to a client that does not run its canary yet.
OFFER_AGAIN_S = 5.0

log = logging.getLogger("mcoe")

#: Says why a new model (its SHA-256) must not be released in place of its parent (the other), or None.
Gate = Callable[[str, str], str | None]


@dataclass(frozen=True)
class _Question:
    """An evaluate message that is under way."""

    client: str
    version: int
    ends: float


@dataclass(frozen=True)
class _Parcel:
    """What an evaluate message holds, the same for every client."""

    version: int
    task: EvaluateTask
    model: ArrayRecord
    parent: ArrayRecord


@dataclass
class Trials:
    """The models of one experiment that are neither released nor held.

    ``gate`` compares a candidate with its parent on the operator's clips; without one clients may be asked to, at most
    ``max_in_flight`` at a time. ``deadline_s``: what a client's report may take.
    """

    presence: Presence
    registry: Registry
    artifacts: Artifacts
    policy: ReleasePolicy
    train_mode: TrainMode
    gate: Gate | None = None
    deadline_s: float = 3600.0
    max_in_flight: int = 64
    _questions: dict[str, _Question] = field(default_factory=dict)
    _refrain: dict[str, float] = field(default_factory=dict)
    _gated: dict[int, Decision] = field(default_factory=dict)
    _parcel: _Parcel | None = None

    def step(self) -> str | None:
        """Go as far as is possible now; why a model is still undecided, or None. Never waits for a client."""
        self._collect()
        while (trial := self.registry.trial()) is not None:
            decision = self._candidate(trial) if trial.model.state == CANDIDATE else self._canary(trial)
            if isinstance(decision, Undecided):
                if trial.says != decision.reason:
                    self.registry.say_of_trial(trial.model.version, decision.reason)
                return f"model version {trial.model.version} is {trial.model.state}: {decision.reason}"
            self._follow(trial, decision)
        self._parcel = None
        return None

    def _candidate(self, trial: Trial) -> Decision:
        """Compare a candidate with its parent."""
        model = trial.model
        if model.parent_sha256 is None:
            return self._passed(trial, "it has no parent to be compared with")
        if self.gate:
            if model.version not in self._gated:
                reason = self.gate(model.sha256, model.parent_sha256)
                self._gated = {model.version: Failed(reason) if reason else Passed("as good as its parent")}
            decision = self._gated[model.version]
        elif self.policy.evaluation_clients:
            decision = judge_reports(trial.reports, self.policy)
        else:
            decision = Passed("it is finite")
        if isinstance(decision, Undecided):
            try:
                return Undecided(f"{decision.reason}, {self._ask(trial)} are asked")
            except (DataMissing, ModelInvalid) as fault:
                return Failed(f"it cannot be sent to be compared: {fault}")
        return self._passed(trial, decision.reason) if isinstance(decision, Passed) else decision

    def _passed(self, trial: Trial, reason: str) -> Decision:
        """What comes after the comparison."""
        if self.policy.canary_share and not self._reachable():
            return Undecided("no client has checked in lately that it could be offered to")
        return self._unless_manual(trial, Passed(reason))

    def _unless_manual(self, trial: Trial, passed: Passed) -> Decision:
        if self.policy.release == "auto":
            return passed
        return Undecided(f"{passed.reason}; it waits for: mcoe-server models promote {trial.model.version}")

    def _canary(self, trial: Trial) -> Decision:
        """Hear whether the clients that a canary is offered to run it."""
        assert trial.started and trial.ends and trial.check_ins is not None and trial.share is not None
        model = trial.model
        if not trial.clients:  # all of them have left the fleet
            others = canary_clients(self._reachable(), model.sha256, trial.share)
            self.registry.add_canary_clients(model.version, others)
        decision = judge_canary(trial.clients, trial.check_ins, trial.ends, utc_now())
        if isinstance(decision, Passed):
            return self._unless_manual(trial, decision)
        now = time.monotonic()
        for client in decision.awaited if isinstance(decision, Undecided) else ():
            if client in self.presence.clients and self._refrain.get(client, 0.0) <= now:
                self.presence.ask_again(client)
                begun = (utc_now() - trial.started).total_seconds()
                self._refrain[client] = now + max(OFFER_AGAIN_S, begun)  # less and less often
        return decision

    def _reachable(self) -> tuple[str, ...]:
        """The clients that a canary can be offered to: those that check in within the time that it has."""
        return self.registry.seen_clients(utc_now() - datetime.timedelta(hours=self.policy.canary_hours))

    def _follow(self, trial: Trial, decision: Passed | Failed) -> None:
        """Do what was decided."""
        version, before = trial.model.version, trial.model.state
        after: ModelState = HELD if isinstance(decision, Failed) else RELEASED
        if after == RELEASED and before == CANDIDATE and self.policy.canary_share:
            after = CANARY
            clients = canary_clients(self._reachable(), trial.model.sha256, self.policy.canary_share)
            ends = utc_now() + datetime.timedelta(hours=self.policy.canary_hours)
            needed = self.policy.canary_check_ins
            done = self.registry.begin_canary(version, clients, self.policy.canary_share, needed, ends)
        else:
            done = self.registry.decide(version, before, after, decision.reason)
        if done:
            level = logging.WARNING if after == HELD else logging.INFO
            log.log(level, "model version %d (%s): %s: %s", version, trial.model.sha256[:12], after, decision.reason)
        self._refrain.clear()

    def _ask(self, trial: Trial) -> int:
        """Ask as many clients as reports are missing; returns how many are awaited."""
        model, now = trial.model, time.monotonic()
        asked = {one.client for one in self._questions.values() if one.version == model.version}
        heard = {report.client_id for report in trial.reports}
        learned = self.registry.asked_for(model.sha256)
        free = {
            client: client in learned
            for client, present in self.presence.clients.items()
            if present.check_in.examples
            and client not in asked | heard
            and self._refrain.get(client, 0.0) <= now
            and self.presence.may_train(client)  # a program that is too old answers another question
        }
        missing = self.policy.evaluation_clients - len(heard) - len(asked)
        missing = min(missing, self.max_in_flight - len(self._questions))
        for client in whom_to_ask(free, model.sha256)[: max(0, missing)]:
            self._send(model, client, now)
            asked.add(client)
        return len(asked)

    def _send(self, model: ModelRow, client: str, now: float) -> None:
        if self._parcel is None or self._parcel.version != model.version:
            self._parcel = self._pack(model)
        present = self.presence.clients[client]
        content = RecordDict(
            {
                "model": self._parcel.model,
                "parent": self._parcel.parent,
                "task": ConfigRecord(self._parcel.task.to_record()),  # type: ignore[arg-type]
                "news": ConfigRecord(self.presence.tell(present).to_record()),  # type: ignore[arg-type]
            }
        )
        message = Message(content, dst_node_id=present.node, message_type=MessageType.EVALUATE)
        for message_id in self.presence.grid.push_messages([message]):
            self._questions[message_id] = _Question(client, model.version, now + self.deadline_s)

    def _pack(self, model: ModelRow) -> _Parcel:
        assert model.parent_sha256 is not None
        payloads = []
        for sha256 in (model.sha256, model.parent_sha256):
            tensors, _ = self.artifacts.get(sha256)
            payloads.append({name: tensors[name] for name in payload_names(specs_of(tensors), self.train_mode)})
        new, parent = payloads
        hashes = (tensors_sha256(new), tensors_sha256(parent))
        task = EvaluateTask(model.sha256, *hashes, model.generation, self.train_mode)
        return _Parcel(model.version, task, packed(new), packed(parent))

    def _collect(self) -> None:
        """Take the reports that are there; give up those that are late, or whose client has gone."""
        now = time.monotonic()
        for message_id, question in list(self._questions.items()):
            for answer in self.presence.grid.pull_messages([message_id]):
                del self._questions[message_id]
                self._hear(question, answer, now)
            if message_id in self._questions and now >= question.ends:
                del self._questions[message_id]
                self._refrain[question.client] = now + ASK_AGAIN_S
                log.warning("model version %d: a report did not come in time", question.version)
            elif message_id in self._questions and question.client not in self.presence.clients:
                del self._questions[message_id]
                self._refrain[question.client] = now + LOST_AGAIN_S

    def _hear(self, question: _Question, answer: Message, now: float) -> None:
        if answer.has_error() and is_lost(answer.error):
            self.presence.forget(question.client)
            self._refrain[question.client] = now + LOST_AGAIN_S
            return
        try:
            if not answer.has_content():
                raise ProtocolError(f"client error: {answer.error.reason or 'no reason given'}")
            report = EvaluateReport.from_record(dict(record(answer, "report")))
            if report.client_id != question.client:
                raise ProtocolError("the report names another client")
            if report.model_sha256 != self.registry.model(question.version).sha256:
                raise ProtocolError("the report is on another model")
        except Exception as fault:  # whatever a client sends must not end the others' trial
            reason = "".join(letter if letter.isprintable() else "?" for letter in str(fault)[:300])
            self.registry.audit("evaluation rejected", question.client, reason)
            # Whose it was is in the registry, which can forget.
            log.warning("model version %d: a report rejected: %s", question.version, reason)
            self._refrain[question.client] = now + ASK_AGAIN_S
            return
        self.registry.record_report(question.version, report)
