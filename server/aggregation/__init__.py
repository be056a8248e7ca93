"""Aggregation: a pure function of (base model, set of accepted updates, settings), in column chunks.

The loop over tensors and chunks is here, once; what happens to a chunk is a rule, one file each. Beside the two models,
memory is a few times CHUNK_BYTES, and one file is open at a time, whatever the size of the cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mcoe_model.model_file import Tensors
from mcoe_model.update import TensorSpec, expert_of
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

CHUNK_BYTES = 32 << 20


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
    """
    ordered = sorted(contributions, key=lambda contribution: contribution.update_id)
    updates = [open_update(spool, contribution.update_id) for contribution in ordered]
    result = dict(base)
    for name, spec in trainable.items():
        sent = [index for index, update in enumerate(updates) if name in update]
        if not sent:
            continue
        senders = [ordered[index] for index in sent]
        expert = expert_of(name)
        value = base[name].reshape(-1).copy()
        width = max(1, CHUNK_BYTES // (8 * len(sent)))
        for start in range(0, spec.size, width):
            stop = min(start + width, spec.size)
            rows = np.stack([updates[index].columns(name, start, stop) for index in sent])
            if expert is None:
                delta = rule.shared(rows, senders, settings)
            else:
                delta = rule.expert(expert, rows, senders, settings)
            value[start:stop] = value[start:stop].astype(np.float64) + delta
        result[name] = value.reshape(spec.shape)
    return result
