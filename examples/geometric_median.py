"""An aggregation rule of one's own: the geometric median of the clients' updates.

Pillutla et al. 2022, "Robust Aggregation for Federated Learning", algorithm 2 (https://arxiv.org/abs/1912.13445).
Differs: unweighted clients; the weights are found on what everybody sent and used for the experts, too.

    python simulations/conformance.py rule examples/geometric_median.py:GeometricMedian
    python simulations/see_by_subject.py --rule examples/geometric_median.py:GeometricMedian
"""

import numpy as np
from numpy.typing import NDArray

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Plan, Rule, RuleSettings, weighted_sum
from server.spool import SpooledUpdate

STEPS, NEAR = 8, 1e-6


class GeometricMedian(Rule):
    """The point with the least sum of distances to the updates, by smoothed Weiszfeld steps."""

    name = "geometric-median"

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        found = dict(zip((sender.update_id for sender in shared.senders), weights(shared.gram()), strict=True))
        return lambda block: combined(block, found)


def combined(block: Block, found: dict[str, float]) -> Deltas:
    """The weighted mean of those who sent the block."""
    of_senders = [found[sender.update_id] for sender in block.senders]
    return weighted_sum(block, [weight / sum(of_senders) for weight in of_senders])


def weights(gram: NDArray[np.float64]) -> list[float]:
    """The median as a mean of the rows, from their inner products (K, K): weights (K,), which sum to 1."""
    mean = np.full(len(gram), 1 / len(gram))  # (K,)
    for _ in range(STEPS):
        squares = np.diag(gram) - 2 * gram @ mean + mean @ gram @ mean  # (K,) distances to the mean, squared
        pull = 1 / np.maximum(np.sqrt(np.maximum(squares, 0)), NEAR)  # (K,)
        mean = pull / pull.sum()
    return [float(weight) for weight in mean]
