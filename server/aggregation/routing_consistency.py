"""Routing consistency: an expert is averaged over the clients that lean on it about as much as the cohort does.

In the spirit of FedAlign-MoE's consistency weights w_k(e) = s_k(e) / sum_j s_j(e) (Fang et al. 2026,
https://arxiv.org/abs/2603.21276): an expert whose clients use it differently plays different parts for them, and their
average plays none well. Differs: s_k(e) is a ratio of shares of gate mass before training, since no distribution per
clip leaves a client; the weights go to the experts' tensors, where the paper weighs routing distributions with them
and chooses an expert's clients by comparing what the expert says; and no client regularises its router towards the
cohort's. The router's own tensors follow the setting `router`, as under every rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcoe_model.router_statistics import RouterStatistics
from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Float64s, Plan, Rule, RuleSettings, weighted_sum
from server.aggregation.weighted_mean import weighted_mean
from server.spool import SpooledUpdate


class RoutingConsistency(Rule):
    """Shared tensors as the weighted mean; expert e: sum_k s_ke delta_ke / sum_k s_ke."""

    name = "routing-consistency"

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        found = consistency([sender.router for sender in shared.senders])  # (K, E)
        scores = dict(zip((sender.update_id for sender in shared.senders), found, strict=True))

        def combine(block: Block) -> Deltas | None:
            if block.expert is None:
                return weighted_mean(block, settings)
            agreed = np.array([scores[sender.update_id][block.expert] for sender in block.senders])
            return weighted_sum(block, (agreed / agreed.sum()).tolist()) if agreed.any() else None

        return combine


def consistency(statistics: Sequence[RouterStatistics]) -> Float64s:
    """s_ke = min(p_ke, p_e) / max(p_ke, p_e) in [0, 1]: (K, E), for clients k that are all heard alike.

    p_ke is the share of a client's gate mass that expert e has, p_e the mean of all p_ke. An expert without any gate
    mass agrees with nobody.
    """
    shares = np.array([np.divide(client.gate_mass, max(client.examples, 1)) for client in statistics])  # (K, E)
    mean = np.broadcast_to(shares.mean(axis=0), shares.shape)  # (K, E)
    larger = np.maximum(shares, mean)
    agreed: Float64s = np.divide(np.minimum(shares, mean), larger, out=np.zeros_like(larger), where=larger > 0)
    return agreed
