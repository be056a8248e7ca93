"""Multi-Krum: the mean of the updates that lie closest to their neighbours.

Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", section 4
(https://papers.nips.cc/paper/6617). Differs as Krum does; m is always K - f - 2, the largest number for which the rule
is known to hold, so that as few honest updates as possible are wasted.
"""

from __future__ import annotations

from server.aggregation.krum import Krum
from server.aggregation.rule import RuleSettings


class MultiKrum(Krum):
    """The unweighted mean of the m = K - f - 2 updates with the smallest scores, K >= 2f + 3."""

    name = "multi-krum"

    def count(self, clients: int, settings: RuleSettings) -> int:
        return clients - settings.faulty - 2
