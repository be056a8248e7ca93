"""Expert-weighted mean: an expert is averaged by how much each client's clips leaned on it.

In the spirit of HFedMoE's sparsity-aware aggregation (https://arxiv.org/abs/2601.00583) and FLAME
(https://arxiv.org/abs/2506.16600). Differs: the weight is the gate mass measured before training, capped, and ``kappa``
shrinks an expert that hardly anybody used towards its old value, so a never-used expert stays as it is without a 0/0.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.aggregation.rule import Contribution, Float32s, Float64s, RuleSettings, weighted_sum
from server.aggregation.weighted_mean import WeightedMean


class ExpertWeightedMean(WeightedMean):
    """Shared tensors as the weighted mean; expert e: sum_k b_ke delta_ke / (sum_k b_ke + kappa)."""

    def expert(
        self, expert: int, rows: Float32s, senders: Sequence[Contribution], settings: RuleSettings
    ) -> Float64s:
        mass = [min(sender.router.gate_mass[expert], settings.max_gate_mass) for sender in senders]
        total = sum(mass) + settings.kappa
        return weighted_sum(rows, [m / total if total else 0.0 for m in mass])
