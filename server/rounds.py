"""The round engine: open -> receive replies one by one -> close -> aggregate and publish. The one used everywhere.

It knows nothing of Flower, of time-outs or of who carries messages. Everything it decides is in the registry and every
accepted update is in the spool before it says so, so that a process killed at any point goes on with the same round and
ends with the same bits. `resume` is how every process starts.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mcoe_model.errors import DataInvalid, DataMissing, ModelInvalid, SettingsError
from mcoe_model.model_file import ModelCard, Tensors, model_bytes, read_card, tensors_sha256
from mcoe_model.protocol import TrainTask
from mcoe_model.update import (
    TensorSpec,
    block_norms,
    expert_of,
    manifest,
    payload_names,
    specs_of,
)
from server.acceptance import Accepted, Expectation, Rejected, Reply, judge
from server.aggregation import RULES, aggregate
from server.aggregation.optimiser import step
from server.aggregation.rule import Contribution, Rule
from server.registry import CLOSED, OPEN, PUBLISHED, Registry, RoundRow, Transfer
from server.registry.artifacts import Artifacts
from server.registry.models import HELD, RELEASED, ModelState
from server.round_settings import RoundSettings
from server.spool import is_whole, open_update, spool_path, write_update
from server.trusted import REFERENCE

#: The norm of an update's blocks is bounded by this many times the median of the last published rounds' shared blocks.
NORM_FACTOR = 5.0
NORM_ROUNDS = 5
#: Why a round ends whose updates the server has lost. They are in no backup, only in their clients' outboxes.
LOST = "accepted updates are gone from the spool or torn; they come again from clients that still keep them"


#: Trains a round's task on a folder of clips and writes the update to a file, unless it is there.
Trainer = Callable[[TrainTask, Path, Path], None]

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

    ``new_state``: what a new model is at first, released at once or a candidate. One that is not finite is held.
    ``secret`` is what the noise of private rounds is drawn from; no other round needs it.
    ``trainer`` makes the server's own update, for a rule that compares with one; a simulation has none.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: Artifacts,
        spool: Path,
        settings: RoundSettings,
        new_state: ModelState = RELEASED,
        secret: bytes = b"",
        trainer: Trainer | None = None,
    ) -> None:
        self.registry = registry
        self.artifacts = artifacts
        self.spool = spool
        self.settings = settings
        self.new_state = new_state
        self.secret = secret
        self.trainer = trainer

    def start_from(self, tensors: Tensors, card: ModelCard) -> str:
        """Make this model version 1 unless the experiment has one already; returns the newest model's SHA-256."""
        newest = self.registry.newest_model()
        if newest is None:
            newest = self.artifacts.put(tensors, card)
            self.registry.add_first_model(newest, card.generation.id)
        return newest

    def resume(self) -> RoundInProgress | None:
        """The round that was under way when the last process ended, if any. What it left for nobody is removed."""
        self.registry.end_overtaken()
        self._remove_orphans()
        row = self.registry.unfinished_round()
        kept = {past.spool_name for past in self.registry.rounds() if past.settings.get("keep_updates")}
        for folder in self.spool.glob("round-*"):
            if folder.name not in kept | ({row.spool_name} if row else set()):
                shutil.rmtree(folder)
        return self._in_progress(row) if row else None

    def _remove_orphans(self) -> None:
        """Remove the model of a process that was killed before it published it: who is in it may be forgotten since.

        Other processes, of other experiments, may be about to name theirs; so a model's card must say that it is ours.
        """
        ours = {"experiment": self.registry.experiment, "round": self.registry.last_published() + 1}
        for sha256 in self.artifacts.stored() - self.registry.named_artifacts():
            with suppress(ModelInvalid):  # an optimiser's moments, or damaged
                if ours.items() <= dict(read_card(self.artifacts.path(sha256)).trained_on).items():
                    self.artifacts.path(sha256).unlink()

    def open(self, cohort: Sequence[str]) -> RoundInProgress:
        """Open the next round for these clients, from the newest model.

        Raises ModelInvalid without one, SettingsError for a rule that needs what is not here.
        """
        if RULES[self.settings.rule].needs_reference and self.trainer is None:
            raise SettingsError([f"rule {self.settings.rule} needs the server to train, and nothing here can train"])
        base = self.registry.newest_model()
        if base is None:
            raise ModelInvalid("the experiment has no model yet; give it its first one")
        bound, moments = self._norm_bound(base), self._moments(base)
        row = self.registry.open_round(base, cohort, asdict(self.settings), bound, moments)
        self.registry.end_overtaken()  # should the operator have released another model meanwhile
        return self._in_progress(row)

    def eligible(self, clients: Iterable[str]) -> list[str]:
        """Whom of these a round may ask, by id: who fits the cohort filter; in private mode, while its budget lasts."""
        private, among = self.settings.private, self.registry.among(self.settings.cohort_filter)
        named = among.intersection(clients)
        return sorted(private.may_take_part(self.registry, named) if private else named)

    def _norm_bound(self, base_sha256: str) -> float | None:
        """What an update's blocks may have as norm. It is learned from earlier rounds, where nobody can move it now.

        Before there are any, and after updates that were all zero, it is the norm of the base's own shared block: an
        update that outweighs the whole model is none.
        """
        if self.settings.private:
            return None  # a long update is clipped; a bound that is learned would tell of earlier ones
        base, card = self.artifacts.get(base_sha256)
        median = self.registry.median_norm(NORM_ROUNDS, card.generation.id)
        if median:
            return NORM_FACTOR * median
        trained = manifest(specs_of(base), self.settings.train_mode, ())
        return block_norms({name: base[name] for name in trained})[None]

    def _moments(self, base_sha256: str) -> str | None:
        """The optimiser's moments that a round from this base goes on with; another optimiser's mean nothing to it."""
        optimiser = self.settings.optimiser.name
        kept = self.registry.moments_of(base_sha256) if optimiser != "none" else None
        return kept if kept and self.artifacts.get_moments(kept)[1] == optimiser else None

    def waiting_for(self, current: RoundInProgress) -> tuple[str, ...]:
        """The clients of the cohort whose reply has not been judged; nobody once the round is closed."""
        return self.registry.awaited(current.row.id)

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
            if verdict.staleness and self.registry.took_update(verdict.meta.update_id):
                verdict = Rejected("this update went into an earlier round")
            else:
                write_update(self._spool_of(current.row), verdict.meta.update_id, reply.update)
        transfer = Transfer(tensors_bytes(current.payload), tensors_bytes(reply.update))
        if not self.registry.record_reply(current.row.id, reply.client_id, verdict, transfer):
            if isinstance(verdict, Accepted):
                spool_path(self._spool_of(current.row), verdict.meta.update_id).unlink(missing_ok=True)
            return Rejected("the round is over, or its client has left the fleet")
        return verdict

    def no_reply(self, current: RoundInProgress, client_id: str, reason: str) -> None:
        """Record that a client answered with an error or not at all; a repeat changes nothing."""
        expected = client_id in current.expectation.cohort and self.registry.is_open(current.row.id)
        if expected and self.registry.verdict(current.row.id, client_id) is None:
            nothing = Transfer(tensors_bytes(current.payload), 0)
            self.registry.record_reply(current.row.id, client_id, Rejected(reason), nothing)

    def finish(self, current: RoundInProgress) -> str | None:
        """Close the round, aggregate what was accepted and publish the next model; returns its SHA-256.

        Raises McoeError when the server's own update cannot be trained; the round then stays closed, to be finished.
        None when the quorum was missed or an accepted update is lost: the round is abandoned with its reason and the
        model stays as it was. So it is when the round was ended by others. Whoever is forgotten meanwhile is not in
        what is published.
        """
        while (row := self.registry.round(current.row.id)).state in (OPEN, CLOSED):
            contributions = self.registry.contributions(row.id)
            rule = self._rule(current.settings, row)
            needed = rule.least(current.settings.rule_settings)
            if row.state == OPEN:
                needed = max(needed, current.settings.needed(len(row.cohort)))
            if len(contributions) < needed:
                reason = f"{len(contributions)} of {len(row.cohort)} replies were accepted, {needed} are needed"
                self.registry.abandon_round(row.id, reason)
                break
            if row.state == OPEN:
                self.registry.close_round(row.id)
            try:
                made = self._publish(current, row, contributions)
            except (DataMissing, DataInvalid, FileNotFoundError):
                if contributions != self.registry.contributions(row.id):
                    continue  # the update of a client that was forgotten is gone: the others remain
                lost = self._lost(row, contributions)
                if not lost:
                    raise
                self.registry.abandon_round(row.id, f"{LOST}: {lost} of {len(contributions)}")
                continue
            if made:
                if not current.settings.keep_updates:
                    self._remove_spool(row)
                return made
        if row.state != PUBLISHED:
            self._remove_spool(row)
        return None

    def _publish(self, current: RoundInProgress, row: RoundRow, contributions: list[Contribution]) -> str | None:
        """Aggregate these and publish the model; None when they are no longer what was accepted."""
        settings = current.settings
        if settings.private:
            senders = [contribution.client_id for contribution in contributions]
            settings.private.spend(self.registry, row, senders)
        if self._rule(settings, row).needs_reference:
            target = spool_path(self._spool_of(row), REFERENCE)
            assert self.trainer is not None, "`open` asks for it"
            self.trainer(current.task, Path(settings.trusted_set), target)
        tensors, card, moments = self._aggregate(row, contributions)
        kept = self.artifacts.put_moments(moments, settings.optimiser.name) if moments else None
        made = self.artifacts.put(tensors, card)
        held = _not_finite(tensors)
        if held:
            self.registry.audit("model held", None, f"round {row.number}, {made}: {held}")
        state = HELD if held else self.new_state
        updates = [contribution.update_id for contribution in contributions]
        if self.registry.publish_round(row.id, made, card.generation.id, state, kept, updates):
            return made
        for sha256 in {made, kept} - self.registry.named_artifacts() - {None}:  # somebody who was forgotten is in it
            self.artifacts.path(str(sha256)).unlink()
        return None

    def _lost(self, row: RoundRow, contributions: list[Contribution]) -> int:
        """How many of these accepted updates are gone from the spool, or torn."""
        return sum(not is_whole(self._spool_of(row), contribution.update_id) for contribution in contributions)

    def replay(self, number: int) -> tuple[str, str]:
        """Aggregate a published round once more: the SHA-256 that was published, and the one that comes out now.

        Raises DataMissing for a round that was not published, or whose updates were not kept.
        """
        row = self.registry.published_round(number)
        if row is None or row.published_sha256 is None:
            raise DataMissing(f"round {number} was not published; see: mcoe-server rounds list")
        if not (self.spool / row.spool_name).is_dir():
            raise DataMissing(f"the updates of round {number} were not kept; keep_updates keeps those of later rounds")
        tensors, card, _ = self._aggregate(row, self.registry.contributions(row.id))
        return row.published_sha256, hashlib.sha256(model_bytes(tensors, card)).hexdigest()

    def _aggregate(self, row: RoundRow, contributions: list[Contribution]) -> tuple[Tensors, ModelCard, Tensors]:
        """The model that these accepted updates of a closed round make, and the server optimiser's moments after it."""
        settings = RoundSettings.from_stored(row.settings)
        base, card = self.artifacts.get(row.base_sha256)
        specs = specs_of(base)
        rule = self._rule(settings, row)
        aggregated = aggregate(
            base,
            manifest(specs, settings.train_mode, range(_experts(specs))),
            self._spool_of(row),
            contributions,
            rule,
            settings.rule_settings,
            open_update(self._spool_of(row), REFERENCE) if rule.needs_reference else None,
        )
        before = self.artifacts.get_moments(row.moments_sha256)[0] if row.moments_sha256 else {}
        tensors, moments = step(base, aggregated, before, settings.optimiser)
        clients = len(contributions)
        trained_on = {"experiment": self.registry.experiment, "round": row.number, "clients": clients}
        return tensors, card.child_of(row.base_sha256, "federated round", trained_on), moments

    def _rule(self, settings: RoundSettings, row: RoundRow) -> Rule:
        if settings.private:
            return settings.private.rule(self.secret, self.registry.experiment, row)
        return RULES[settings.rule]

    def _in_progress(self, row: RoundRow) -> RoundInProgress:
        settings = RoundSettings.from_stored(row.settings)
        base, card = self.artifacts.get(row.base_sha256)
        specs = specs_of(base)
        earlier = self.registry.ancestors(row.base_sha256, settings.max_staleness) if settings.first_k else ()
        payload = {name: base[name] for name in payload_names(specs, settings.train_mode)}
        expectation = Expectation(
            row.number,
            row.base_sha256,
            card.generation.id,
            settings.train_mode,
            specs,
            _experts(specs),
            card.generation.top_k,
            frozenset(row.cohort),
            row.norm_bound,
            all_experts=settings.private is not None,
            welcome={sha256: staleness for staleness, sha256 in enumerate(earlier, 1)},
        )
        task = TrainTask(
            row.number,
            row.base_sha256,
            tensors_sha256(payload),
            card.generation.id,
            settings.train_mode,
            settings.fine_tune_in(row.number),
            settings.seed,
            () if settings.private else self._expert_load(row.number - 1, card.generation.id),
            all_experts=settings.private is not None,
            welcome=earlier,
        )
        return RoundInProgress(row, settings, expectation, task, payload)

    def _expert_load(self, number: int, generation: str) -> tuple[float, ...]:
        """The expert load of a published round's cohort, summed over its clients.

        Empty when there was none, or when it was a round of another generation.
        """
        row = self.registry.published_round(number)
        if row is None or self.registry.model(str(row.published_sha256)).generation != generation:
            return ()
        statistics = list(self.registry.router_statistics(row.id).values())
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


def tensors_bytes(tensors: Tensors) -> int:
    """Bytes of the tensors' values."""
    return sum(array.nbytes for array in tensors.values())


__all__ = ["CLOSED", "OPEN", "RoundEngine", "RoundInProgress", "RoundSettings"]
