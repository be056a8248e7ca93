"""Aggregation: a pure function of (base model, set of accepted updates, settings), in column chunks.

The loop over tensors and chunks is here, once; what happens to a chunk is a rule, one file each. Memory is bounded by
CHUNK_BYTES whatever the size of the cohort or of the model's largest tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
    result = dict(base)
    with ExitStack() as stack:
        updates = [stack.enter_context(open_update(spool, contribution.update_id)) for contribution in ordered]
        for name, spec in trainable.items():
            sent = [index for index, update in enumerate(updates) if name in update]
            if not sent:
                continue
            senders = [ordered[index] for index in sent]
            expert = expert_of(name)
            value = base[name].astype(np.float64).reshape(-1)
            width = max(1, CHUNK_BYTES // (8 * len(sent)))
            for start in range(0, spec.size, width):
                stop = min(start + width, spec.size)
                rows = np.stack([updates[index].columns(name, start, stop) for index in sent])
                if expert is None:
                    value[start:stop] += rule.shared(rows, senders, settings)
                else:
                    value[start:stop] += rule.expert(expert, rows, senders, settings)
            result[name] = value.astype(base[name].dtype).reshape(spec.shape)
    return result
