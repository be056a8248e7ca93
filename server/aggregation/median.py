"""Coordinate median: every value of the delta is the median over the clients.

Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 1
(https://arxiv.org/abs/1803.01498). Differs as the trimmed mean does, which it is with as much dropped as can be.
"""

from __future__ import annotations

from server.aggregation.rule import RuleSettings
from server.aggregation.trimmed_mean import TrimmedMean


class Median(TrimmedMean):
    """Unweighted, per coordinate; of an even number the mean of the middle two."""

    name = "median"

    def dropped(self, clients: int, settings: RuleSettings) -> int:
        return (clients - 1) // 2
