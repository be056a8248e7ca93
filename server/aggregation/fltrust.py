"""FLTrust: clients count by how far their update points where the server's own does, and at its length.

Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", algorithm 2
(https://arxiv.org/abs/2012.13995). Differs: trust comes from the shared tensors alone, since experts that were not used
are absent from an update; an expert is averaged by the same trust over the clients that sent it, at the length of the
server's delta of that expert. An expert that the server's clean clips never used keeps its value, since nothing vouches
for it.
"""

from __future__ import annotations

import numpy as np

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Float64s, Plan, Rule, RuleSettings, weighted_sum
from server.spool import SpooledUpdate


class FLTrust(Rule):
    """delta = sum_k t_k (|g_0| / |g_k|) g_k / sum_k t_k with t_k = max(0, cos(g_k, g_0)), g_0 the server's update."""

    name = "fltrust"
    needs_reference = True

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        assert reference is not None
        norms = shared.norms(reference)
        lengths = norms[:-1] * norms[-1]
        cosines = np.divide(shared.products(reference), lengths, out=np.zeros_like(lengths), where=lengths > 0)
        trust = dict(zip((sender.update_id for sender in shared.senders), np.maximum(cosines, 0.0), strict=True))

        def combine(block: Block) -> Deltas | None:
            if block.expert is None:
                return _trusted(block, trust, norms)
            if block.tensors[0][0] not in reference:
                return None
            return _trusted(block, trust, block.norms(reference))

        return combine


def _trusted(block: Block, trust: dict[str, np.float64], norms: Float64s) -> Deltas | None:
    """The trusted mean at the reference's length; ``norms`` (K + 1,) are the senders' and, last, the reference's."""
    trusts = np.array([trust[sender.update_id] for sender in block.senders])
    if not trusts.any():
        return None
    rescaled = np.divide(norms[-1], norms[:-1], out=np.zeros_like(trusts), where=norms[:-1] > 0)
    return weighted_sum(block, (trusts * rescaled / trusts.sum()).tolist())
