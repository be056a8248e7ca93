"""The router's tensors, which may be aggregated otherwise than the rest: averaged, damped or kept as they are.

Routers that were trained on different people drift apart, and their average may route nobody well (FedAlign-MoE,
https://arxiv.org/abs/2603.21276). Damping lets a client move the router only as far as it routes like the cohort.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcoe_model.router_statistics import RouterStatistics
from server.aggregation.rule import Float64s


def is_router(name: str) -> bool:
    """Whether a tensor belongs to the router."""
    return name.startswith("moe.router.")


def agreement(statistics: Sequence[RouterStatistics]) -> list[float]:
    """rho_k = 1 - JS(q_k || q), q_k the shares of a client's routed clips and q their mean; from 0 to 1.

    The Jensen-Shannon divergence is in bits. Every client counts alike in q, whatever number of clips it reports.
    """
    loads = np.array([client.load for client in statistics], np.float64)  # (K, E)
    mean = loads.mean(axis=0)  # (E,)
    between = (loads + mean) / 2
    divergence = (_relative_entropy(loads, between) + _relative_entropy(mean, between)) / 2  # (K,)
    return [float(rho) for rho in np.clip(1 - divergence, 0.0, 1.0)]


def _relative_entropy(p: Float64s, q: Float64s) -> Float64s:
    """KL(p || q) in bits over the last axis, where 0 log 0 is 0; q is above 0 wherever p is."""
    ratio = np.divide(p, q, out=np.ones_like(q), where=(p > 0) & (q > 0))
    bits: Float64s = (p * np.log2(ratio)).sum(axis=-1)
    return bits
