"""Expert-weighted mean: an expert is averaged by how much each client's clips leaned on it.

In the spirit of HFedMoE's sparsity-aware aggregation (https://arxiv.org/abs/2601.00583) and FLAME
(https://arxiv.org/abs/2506.16600). Differs: the weight is the gate mass measured before training, capped, and ``kappa``
shrinks an expert that hardly anybody used towards its old value, so a never-used expert stays as it is without a 0/0.
"""

from __future__ import annotations

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Plan, Rule, RuleSettings, weighted_sum
from server.aggregation.weighted_mean import weighted_mean
from server.spool import SpooledUpdate


class ExpertWeightedMean(Rule):
    """Shared tensors as the weighted mean; expert e: sum_k b_ke delta_ke / (sum_k b_ke + kappa)."""

    name = "expert-weighted-mean"

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        return lambda block: self._combine(block, settings)

    def _combine(self, block: Block, settings: RuleSettings) -> Deltas | None:
        if block.expert is None:
            return weighted_mean(block, settings)
        mass = [min(sender.router.gate_mass[block.expert], settings.max_gate_mass) for sender in block.senders]
        total = sum(mass) + settings.kappa
        return weighted_sum(block, [m / total for m in mass]) if total else None
