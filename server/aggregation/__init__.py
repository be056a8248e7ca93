"""Aggregation: a pure function of (base model, set of accepted updates, settings), in column chunks.

The loop over blocks and chunks is here, once; what happens to a block is a rule, one file each. Beside the two models,
memory is a few times CHUNK_BYTES, and one file is open at a time, whatever the size of the cohort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import RoundFailed, SettingsError
from mcoe_model.model_file import Tensors
from mcoe_model.update import TensorSpec, expert_of
from server.aggregation.block import Block
from server.aggregation.expert_weighted_mean import ExpertWeightedMean
from server.aggregation.fltrust import FLTrust
from server.aggregation.krum import Krum
from server.aggregation.median import Median
from server.aggregation.multi_krum import MultiKrum
from server.aggregation.router import agreement, is_router
from server.aggregation.routing_consistency import RoutingConsistency
from server.aggregation.rule import Contribution, Rule, RuleSettings
from server.aggregation.staleness import staleness_scales
from server.aggregation.trimmed_mean import TrimmedMean
from server.aggregation.weighted_mean import WeightedMean
from server.spool import SpooledUpdate, open_update

_RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        WeightedMean(),
        ExpertWeightedMean(),
        RoutingConsistency(),
        Median(),
        TrimmedMean(),
        Krum(),
        MultiKrum(),
        FLTrust(),
    )
}
#: The rules that need no more than their settings. `PrivateMean` is made anew for every round, with the round's key.
RULES: Mapping[str, Rule] = _RULES


def add_rule(name: str, rule: Rule) -> None:
    """Let rounds of this process use another rule: simulations have rules of their own, a server has none."""
    _RULES[name] = rule


def aggregate(
    base: Tensors,
    trainable: Mapping[str, TensorSpec],
    spool: Path,
    contributions: Sequence[Contribution],
    rule: Rule,
    settings: RuleSettings,
    reference: SpooledUpdate | None = None,
) -> Tensors:
    """The next model: base plus the rule's delta for every trainable tensor that somebody sent, in the base's dtype.

    ``trainable`` is the manifest with every expert; ``contributions`` may come in any order. ``reference`` is the
    update that the server computed itself, for a rule that compares with one. ``base`` is not changed.
    Raises RoundFailed for fewer contributions than the rule can work with, or one without an expert that it needs,
    SettingsError without a reference that it needs, DataMissing or DataInvalid for a spooled update that is gone or
    torn.
    """
    least = rule.least(settings)
    if len(contributions) < least:
        raise RoundFailed(
            f"{rule.name} against {settings.faulty} hostile clients needs {least} updates, not {len(contributions)}; "
            "ask more clients, or assume fewer of them hostile"
        )
    if rule.needs_reference and reference is None:
        raise SettingsError([f"{rule.name} needs an update that the server computed on clips of its own"])
    if settings.router == "kept":
        trainable = {name: spec for name, spec in trainable.items() if not is_router(name)}
    ordered = sorted(contributions, key=lambda contribution: contribution.update_id)
    updates = [open_update(spool, contribution.update_id) for contribution in ordered]
    if rule.needs_every_expert:
        _check_experts(updates, trainable, rule)
    scales = staleness_scales(ordered, settings.staleness_exponent)
    shared = Block(None, _tensors_of(None, trainable), ordered, updates, scales)
    plan = rule.plan(shared, settings, reference)
    result = dict(base)
    for block in [*_shared_blocks(shared, settings), *_expert_blocks(shared, trainable)]:
        deltas = plan(block) if block.tensors else None
        if deltas is None:
            continue
        values: NDArray[np.floating] = np.concatenate([base[name].reshape(-1) for name, _ in block.tensors])
        for start, delta in deltas:
            stop = start + len(delta)
            values[start:stop] = values[start:stop].astype(np.float64) + delta
        begin = 0
        for name, spec in block.tensors:
            part = values[begin : begin + spec.size].reshape(spec.shape)
            result[name] = part.astype(base[name].dtype, copy=False)
            begin += spec.size
    return result


def _check_experts(updates: Sequence[SpooledUpdate], trainable: Mapping[str, TensorSpec], rule: Rule) -> None:
    for update in updates:
        lacking = {expert_of(name) for name in trainable if name not in update}
        if lacking:
            raise RoundFailed(
                f"{rule.name} needs every expert in every update, and {update.path.stem} lacks {len(lacking)} of them; "
                "have clients send all experts"
            )


def _tensors_of(expert: int | None, trainable: Mapping[str, TensorSpec]) -> tuple[tuple[str, TensorSpec], ...]:
    """The tensors of one expert, or the shared ones, in name order."""
    return tuple((name, trainable[name]) for name in sorted(trainable) if expert_of(name) == expert)


def _shared_blocks(shared: Block, settings: RuleSettings) -> Iterator[Block]:
    """What everybody sent: in one block, or the damped router in a block of its own."""
    if settings.router != "damped":
        yield shared
        return
    agreed = agreement([sender.router for sender in shared.senders])
    fresh = shared.scales or [1.0] * len(agreed)
    scales = [rho * weight for rho, weight in zip(agreed, fresh, strict=True)]
    rest = tuple(tensor for tensor in shared.tensors if not is_router(tensor[0]))
    router = tuple(tensor for tensor in shared.tensors if is_router(tensor[0]))
    yield Block(None, rest, shared.senders, shared.updates, shared.scales)
    yield Block(None, router, shared.senders, shared.updates, scales)


def _expert_blocks(shared: Block, trainable: Mapping[str, TensorSpec]) -> Iterator[Block]:
    """The blocks of the experts that somebody sent, in their order, each over its senders."""
    for expert in sorted({e for e in map(expert_of, trainable) if e is not None}):
        tensors = _tensors_of(expert, trainable)
        sent = [index for index, update in enumerate(shared.updates) if tensors[0][0] in update]
        if sent:
            block = shared.only(sent)
            yield Block(expert, tensors, block.senders, block.updates, block.scales)
