"""Expert-weighted mean: an expert is averaged by how much each client's clips leaned on it.

In the spirit of HFedMoE's sparsity-aware aggregation (https://arxiv.org/abs/2601.00583) and FLAME
(https://arxiv.org/abs/2506.16600). Differs: the weight is the gate mass measured before training, capped, and ``kappa``
shrinks an expert that hardly anybody used towards its old value, so a never-used expert stays as it is without a 0/0.
"""

from __future__ import annotations

from server.aggregation.block import Block
from server.aggregation.rule import Combine, RuleSettings, weighted_sum
from server.aggregation.weighted_mean import WeightedMean


class ExpertWeightedMean(WeightedMean):
    """The shared block as the weighted mean; expert e: sum_k b_ke delta_ke / (sum_k b_ke + kappa)."""

    def combine(self, block: Block, settings: RuleSettings) -> Combine:
        if block.expert is None:
            return super().combine(block, settings)
        mass = [min(sender.router.gate_mass[block.expert], settings.max_gate_mass) for sender in block.senders]
        total = sum(mass) + settings.kappa
        weights = [m / total if total else 0.0 for m in mass]
        return lambda rows: weighted_sum(rows, weights)
