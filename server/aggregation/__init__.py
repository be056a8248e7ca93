"""Aggregation: a pure function of (base model, set of accepted updates, settings), in column chunks.

The loop over blocks and chunks is here, once; what happens to a chunk is a rule, one file each. Beside the two models,
memory is a few times CHUNK_BYTES, and one file is open at a time, whatever the size of the cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcoe_model.model_file import Tensors
from mcoe_model.update import TensorSpec, expert_of
from server.aggregation.block import Block
from server.aggregation.expert_weighted_mean import ExpertWeightedMean
from server.aggregation.median import Median
from server.aggregation.rule import Contribution, Rule, RuleSettings
from server.aggregation.weighted_mean import WeightedMean
from server.spool import open_update

RULES: Mapping[str, Rule] = {
    "weighted-mean": WeightedMean(),
    "expert-weighted-mean": ExpertWeightedMean(),
    "median": Median(),
}


def aggregate(
    base: Tensors,
    trainable: Mapping[str, TensorSpec],
    spool: Path,
    contributions: Sequence[Contribution],
    rule: Rule,
    settings: RuleSettings,
) -> Tensors:
    """The next model: base plus the rule's delta for every trainable tensor that somebody sent, in the base's dtype.

    ``trainable`` is the manifest with every expert; ``contributions`` may come in any order. ``base`` is not changed.
    Raises DataMissing or DataInvalid for a spooled update that is gone or torn.
    """
    result = dict(base)
    for block in blocks(trainable, spool, contributions):
        combine = rule.combine(block, settings)
        if combine is None:
            continue
        values: NDArray[np.floating] = np.concatenate([base[name].reshape(-1) for name, _ in block.tensors])
        for start, rows in block.chunks():
            stop = start + rows.shape[1]
            values[start:stop] = values[start:stop].astype(np.float64) + combine(rows)
        begin = 0
        for name, spec in block.tensors:
            part = values[begin : begin + spec.size].reshape(spec.shape)
            result[name] = part.astype(base[name].dtype, copy=False)
            begin += spec.size
    return result


def blocks(
    trainable: Mapping[str, TensorSpec], spool: Path, contributions: Sequence[Contribution]
) -> list[Block]:
    """The blocks that somebody sent: the shared one, then the experts' in order."""
    ordered = sorted(contributions, key=lambda contribution: contribution.update_id)
    updates = [open_update(spool, contribution.update_id) for contribution in ordered]
    tensors: dict[int | None, list[tuple[str, TensorSpec]]] = {}
    for name in sorted(trainable):
        tensors.setdefault(expert_of(name), []).append((name, trainable[name]))
    found = []
    for expert in sorted(tensors, key=lambda e: -1 if e is None else e):
        first = tensors[expert][0][0]
        sent = [index for index, update in enumerate(updates) if first in update]
        if sent:
            senders, files = [ordered[index] for index in sent], [updates[index] for index in sent]
            found.append(Block(expert, tuple(tensors[expert]), senders, files))
    return found
