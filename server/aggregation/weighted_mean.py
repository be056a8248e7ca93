"""Weighted mean: every client counts by its number of clips, at most ``max_examples``.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1
(https://arxiv.org/abs/1602.05629). Differs: the weight is capped, and an expert's tensors are averaged over the
clients that sent them, since an unused expert is absent from an update.
"""

from __future__ import annotations

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Plan, Rule, RuleSettings, weighted_sum
from server.spool import SpooledUpdate


class WeightedMean(Rule):
    """delta = sum_k a_k delta_k with a_k = min(n_k, max_examples) / sum."""

    name = "weighted-mean"

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        return lambda block: weighted_mean(block, settings)


def weighted_mean(block: Block, settings: RuleSettings) -> Deltas:
    """The block's mean, weighted by clips."""
    counted = [min(sender.examples, settings.max_examples) for sender in block.senders]
    return weighted_sum(block, [count / sum(counted) for count in counted])
