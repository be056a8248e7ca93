"""Coordinate median: every value of the delta is the median over the clients.

Yin et al. 2018, "Byzantine-Robust Distributed Learning", section 4 (https://arxiv.org/abs/1803.01498). Differs: an
expert is touched only when at least 2f + 1 clients sent it; below that, f hostile clients could set it, so it keeps
its value.
"""

from __future__ import annotations

import numpy as np

from server.aggregation.block import Block
from server.aggregation.rule import Combine, Float32s, Float64s, RuleSettings


class Median:
    """Unweighted, per coordinate; of an even number the mean of the middle two."""

    def combine(self, block: Block, settings: RuleSettings) -> Combine | None:
        if block.expert is not None and len(block.senders) < 2 * settings.faulty + 1:
            return None
        return _median


def _median(rows: Float32s) -> Float64s:
    return np.median(rows.astype(np.float64), axis=0)
