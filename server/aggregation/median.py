"""Coordinate median: every value of the delta is the median over the clients.

Yin et al. 2018, "Byzantine-Robust Distributed Learning", section 4 (https://arxiv.org/abs/1803.01498). Differs: an
expert is touched only when at least 2f + 1 clients sent it; below that, f hostile clients could set it, so it keeps
its value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.aggregation.rule import Contribution, Float32s, Float64s, RuleSettings


class Median:
    """Unweighted, per coordinate; of an even number the mean of the middle two."""

    def shared(self, rows: Float32s, senders: Sequence[Contribution], settings: RuleSettings) -> Float64s:
        return np.median(rows.astype(np.float64), axis=0)

    def expert(
        self, expert: int, rows: Float32s, senders: Sequence[Contribution], settings: RuleSettings
    ) -> Float64s:
        if len(rows) < 2 * settings.faulty + 1:
            return np.zeros(rows.shape[1], np.float64)
        return self.shared(rows, senders, settings)
