"""The round engine: open -> receive replies one by one -> close -> aggregate and publish. The one used everywhere.

It knows nothing of Flower, of time-outs or of who carries messages. Everything it decides is in the registry and every
accepted update is in the spool before it says so, so that a process killed at any point goes on with the same round and
ends with the same bits. `resume` is how every process starts.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcoe_model.errors import DataMissing, ModelInvalid, SettingsError
from mcoe_model.learning.settings import FineTuneSettings, Schedule, rate_factor
from mcoe_model.model_file import ModelCard, Tensors, model_bytes, tensors_sha256
from mcoe_model.protocol import TrainTask
from mcoe_model.update import (
    TRAIN_MODES,
    TensorSpec,
    TrainMode,
    block_norms,
    expert_of,
    manifest,
    payload_names,
    specs_of,
)
from server.acceptance import Accepted, Expectation, Rejected, Reply, judge
from server.aggregation import RULES, aggregate
from server.aggregation.rule import Rule, RuleSettings
from server.private_mode import PrivateMode
from server.registry import CLOSED, OPEN, Registry, RoundRow, Transfer
from server.registry.artifacts import Artifacts
from server.registry.models import HELD, RELEASED
from server.spool import write_update

#: The norm of an update's blocks is bounded by this many times the median of the last published rounds' shared blocks.
NORM_FACTOR = 5.0
NORM_ROUNDS = 5


@dataclass(frozen=True)
class RoundSettings:
    """What every round of an experiment does.

    - ``schedule``: how the clients' learning rate goes over ``rounds`` rounds; `cosine` needs to know how many.
    - ``quorum``: the share of the cohort whose replies must be accepted, or the round is abandoned.
    - ``seed``: the experiment's seed, sent to the clients.
    - ``private``: differential privacy; its rule takes the place of ``rule``.
    - ``keep_updates``: accepted updates stay in the spool after their round, so that it can be replayed. They can say
      much about a wearer: for looking into faults, not for every day.
    """

    fine_tune: FineTuneSettings
    train_mode: TrainMode = "head"
    rule: str = "weighted-mean"
    rule_settings: RuleSettings = field(default_factory=RuleSettings)
    quorum: float = 0.5
    seed: int = 0
    schedule: Schedule = "constant"
    rounds: int = 0
    keep_updates: bool = False
    private: PrivateMode | None = None

    def __post_init__(self) -> None:
        found = []
        if self.train_mode not in TRAIN_MODES:
            found.append(f"train mode must be one of {', '.join(TRAIN_MODES)}, not {self.train_mode!r}")
        if self.rule not in RULES:
            found.append(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        elif RULES[self.rule].needs_reference:
            found.append(f"rule {self.rule} compares with an update of the server's own, which rounds do not have yet")
        if self.private and (self.keep_updates or self.rule_settings.router == "damped"):
            found.append("private rounds keep no updates and do not damp the router: both would tell of single clients")
        if self.schedule == "cosine" and self.rounds < 1:
            found.append("a cosine schedule needs the number of rounds")
        if not 0 < self.quorum <= 1:
            found.append(f"quorum must be above 0 and at most 1, not {self.quorum}")
        if found:
            raise SettingsError(found)

    @staticmethod
    def from_stored(stored: Mapping[str, Any]) -> RoundSettings:
        """The settings that a round was opened with, as its row holds them."""
        fine_tune, rule = FineTuneSettings(**stored["fine_tune"]), RuleSettings(**stored["rule_settings"])
        private = PrivateMode(**stored["private"]) if stored.get("private") else None
        return RoundSettings(**{**stored, "fine_tune": fine_tune, "rule_settings": rule, "private": private})


#: Says why a new model (its SHA-256) must not be released in place of its parent (the other), or None.
Gate = Callable[[str, str], str | None]


@dataclass(frozen=True)
class RoundInProgress:
    """An open or closed round with the settings it was opened with, and what is needed to serve and judge it."""

    row: RoundRow
    settings: RoundSettings
    expectation: Expectation
    task: TrainTask
    payload: Tensors


class RoundEngine:
    """Rounds of one experiment. One process at a time may use it on a folder.

    ``gate`` judges a new model before it is released; one that it holds back leaves its parent the newest.
    ``secret`` is what the noise of private rounds is drawn from; no other round needs it.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: Artifacts,
        spool: Path,
        settings: RoundSettings,
        top_k: int,
        gate: Gate = lambda sha256, parent: None,
        secret: bytes = b"",
    ) -> None:
        self.registry = registry
        self.artifacts = artifacts
        self.spool = spool
        self.settings = settings
        self.top_k = top_k
        self.gate = gate
        self.secret = secret

    def start_from(self, tensors: Tensors, card: ModelCard) -> str:
        """Make this model version 1 unless the experiment has one already; returns the newest model's SHA-256."""
        newest = self.registry.newest_model()
        if newest is None:
            newest = self.artifacts.put(tensors, card)
            self.registry.add_first_model(newest, card.generation.id)
        return newest

    def resume(self) -> RoundInProgress | None:
        """The round that was under way when the last process ended, if any. Spools nobody needs are removed."""
        row = self.registry.unfinished_round()
        kept = {past.spool_name for past in self.registry.rounds() if past.settings.get("keep_updates")}
        for folder in self.spool.glob("round-*"):
            if folder.name not in kept | ({row.spool_name} if row else set()):
                shutil.rmtree(folder)
        return self._in_progress(row) if row else None

    def open(self, cohort: Sequence[str]) -> RoundInProgress:
        """Open the next round for these clients, from the newest model."""
        base = self.registry.newest_model()
        if base is None:
            raise ModelInvalid("the experiment has no model yet; give it its first one")
        return self._in_progress(self.registry.open_round(base, cohort, asdict(self.settings), self._norm_bound(base)))

    def may_take_part(self, client_id: str) -> bool:
        """Whether a round may ask this client: in private mode, while its budget lasts."""
        private = self.settings.private
        return private is None or private.may_take_part(self.registry, client_id)

    def _norm_bound(self, base_sha256: str) -> float | None:
        """What an update's blocks may have as norm. It is learned from earlier rounds, where nobody can move it now.

        Before there are any, and after updates that were all zero, it is the norm of the base's own shared block: an
        update that outweighs the whole model is none.
        """
        if self.settings.private:
            return None  # a long update is clipped; a bound that is learned would tell of earlier ones
        median = self.registry.median_norm(NORM_ROUNDS)
        if median:
            return NORM_FACTOR * median
        base, _ = self.artifacts.get(base_sha256)
        trained = manifest(specs_of(base), self.settings.train_mode, ())
        return block_norms({name: base[name] for name in trained})[None]

    def waiting_for(self, current: RoundInProgress) -> tuple[str, ...]:
        """The clients of the cohort whose reply has not been judged; nobody once the round is closed."""
        if not self.registry.is_open(current.row.id):
            return ()
        heard = {reply.client_id for reply in self.registry.replies(current.row.id)}
        return tuple(client for client in current.row.cohort if client not in heard)

    def receive(self, current: RoundInProgress, reply: Reply) -> Accepted | Rejected:
        """Judge one reply; spool it if fit; store the verdict.

        Nothing changes after the round is closed, for a client that was not asked, or for a second reply of a client.
        """
        verdict = judge(reply, current.expectation)
        if reply.client_id not in current.expectation.cohort:
            return verdict
        if not self.registry.is_open(current.row.id):
            return Rejected("the round is closed")
        if self.registry.verdict(current.row.id, reply.client_id) is not None:
            return Rejected("a reply of this client was judged in this round before")
        if isinstance(verdict, Accepted):
            if self.registry.holds_update(current.row.id, verdict.meta.update_id):
                verdict = Rejected("another client sent an update with this id")
            else:
                write_update(self._spool_of(current.row), verdict.meta.update_id, reply.update)
        transfer = Transfer(tensors_bytes(current.payload), tensors_bytes(reply.update))
        self.registry.record_reply(current.row.id, reply.client_id, verdict, transfer)
        return verdict

    def no_reply(self, current: RoundInProgress, client_id: str, reason: str) -> None:
        """Record that a client answered with an error or not at all; a repeat changes nothing."""
        expected = client_id in current.expectation.cohort and self.registry.is_open(current.row.id)
        if expected and self.registry.verdict(current.row.id, client_id) is None:
            nothing = Transfer(tensors_bytes(current.payload), 0)
            self.registry.record_reply(current.row.id, client_id, Rejected(reason), nothing)

    def finish(self, current: RoundInProgress) -> str | None:
        """Close the round, aggregate what was accepted and publish the next model; returns its SHA-256.

        None when the quorum was missed: the round is abandoned with its reason and the model stays as it was.
        """
        contributions = self.registry.contributions(current.row.id)
        settings = current.settings
        rule = self._rule(settings, current.row)
        if current.row.state == OPEN:
            share = settings.quorum * len(current.row.cohort)
            needed = max(rule.least(settings.rule_settings), math.ceil(round(share, 9)))  # 0.07 x 100 is above 7
            if len(contributions) < needed:
                reason = f"{len(contributions)} of {len(current.row.cohort)} replies were accepted, {needed} are needed"
                self.registry.abandon_round(current.row.id, reason)
                self._remove_spool(current.row)
                return None
            self.registry.close_round(current.row.id)
        if settings.private:
            senders = [contribution.client_id for contribution in contributions]
            settings.private.spend(self.registry, current.row, senders)
        tensors, card = self._aggregate(current.row)
        made = self.artifacts.put(tensors, card)
        held = _not_finite(tensors) or self.gate(made, current.row.base_sha256)
        if held:
            self.registry.audit("model held", None, f"round {current.row.number}, {made}: {held}")
        state = HELD if held else RELEASED
        self.registry.publish_round(current.row.id, made, card.generation.id, state)
        if not settings.keep_updates:
            self._remove_spool(current.row)
        return made

    def replay(self, number: int) -> tuple[str, str]:
        """Aggregate a published round once more: the SHA-256 that was published, and the one that comes out now.

        Raises DataMissing for a round that was not published, or whose updates were not kept.
        """
        row = self.registry.published_round(number)
        if row is None or row.published_sha256 is None:
            raise DataMissing(f"round {number} was not published; see: mcoe-server rounds list")
        if not (self.spool / row.spool_name).is_dir():
            raise DataMissing(f"the updates of round {number} were not kept; keep_updates keeps those of later rounds")
        return row.published_sha256, hashlib.sha256(model_bytes(*self._aggregate(row))).hexdigest()

    def _aggregate(self, row: RoundRow) -> tuple[Tensors, ModelCard]:
        """The model that a closed round's accepted updates make."""
        settings = RoundSettings.from_stored(row.settings)
        base, card = self.artifacts.get(row.base_sha256)
        specs = specs_of(base)
        contributions = self.registry.contributions(row.id)
        tensors = aggregate(
            base,
            manifest(specs, settings.train_mode, range(_experts(specs))),
            self._spool_of(row),
            contributions,
            self._rule(settings, row),
            settings.rule_settings,
        )
        clients = len(contributions)
        trained_on = {"experiment": self.registry.experiment, "round": row.number, "clients": clients}
        return tensors, card.child_of(row.base_sha256, "federated round", trained_on)

    def _rule(self, settings: RoundSettings, row: RoundRow) -> Rule:
        if settings.private:
            return settings.private.rule(self.secret, self.registry.experiment, row)
        return RULES[settings.rule]

    def _in_progress(self, row: RoundRow) -> RoundInProgress:
        settings = RoundSettings.from_stored(row.settings)
        base, card = self.artifacts.get(row.base_sha256)
        specs = specs_of(base)
        payload = {name: base[name] for name in payload_names(specs, settings.train_mode)}
        expectation = Expectation(
            row.number,
            row.base_sha256,
            card.generation.id,
            settings.train_mode,
            specs,
            _experts(specs),
            self.top_k,
            frozenset(row.cohort),
            row.norm_bound,
            all_experts=settings.private is not None,
        )
        task = TrainTask(
            row.number,
            row.base_sha256,
            tensors_sha256(payload),
            card.generation.id,
            settings.train_mode,
            _fine_tune(settings, row.number),
            settings.seed,
            () if settings.private else self._expert_load(row.number - 1),
            all_experts=settings.private is not None,
        )
        return RoundInProgress(row, settings, expectation, task, payload)

    def _expert_load(self, number: int) -> tuple[float, ...]:
        """The expert load of a published round's cohort, summed over its clients; empty when there was none."""
        row = self.registry.published_round(number)
        statistics = list(self.registry.router_statistics(row.id).values()) if row else []
        return sum(statistics[1:], start=statistics[0]).load if statistics else ()

    def _spool_of(self, row: RoundRow) -> Path:
        return self.spool / row.spool_name

    def _remove_spool(self, row: RoundRow) -> None:
        shutil.rmtree(self._spool_of(row), ignore_errors=True)


def _experts(specs: Mapping[str, TensorSpec]) -> int:
    """How many experts a model has."""
    return 1 + max((expert for expert in map(expert_of, specs) if expert is not None), default=-1)


def _not_finite(tensors: Tensors) -> str | None:
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    return f"{len(broken)} tensors hold values that are not finite (first: {broken[0]})" if broken else None


def _fine_tune(settings: RoundSettings, number: int) -> FineTuneSettings:
    """The clients' training in a round, at the learning rate that its schedule has in the middle of the round."""
    share = min(1.0, (number - 0.5) / settings.rounds) if settings.rounds else 0.0
    factor = rate_factor(settings.schedule, share=share, step=number - 1)
    return replace(settings.fine_tune, learning_rate=settings.fine_tune.learning_rate * factor)


def tensors_bytes(tensors: Tensors) -> int:
    """Bytes of the tensors' values."""
    return sum(array.nbytes for array in tensors.values())


__all__ = ["CLOSED", "OPEN", "RoundEngine", "RoundInProgress", "RoundSettings"]
