"""Trimmed mean: of every value of the delta, the f smallest and the f largest are dropped, the others averaged.

Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 2
(https://arxiv.org/abs/1803.01498). Differs: the share to drop is given as a number of clients, and an expert is touched
only when at least 2f + 1 clients sent it; below that, f hostile clients could set it, so it keeps its value.
"""

from __future__ import annotations

import numpy as np

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Float32s, Float64s, Plan, Rule, RuleSettings
from server.spool import SpooledUpdate

#: Values that are sorted at a time, so that they stay in a processor's cache.
_TILE_VALUES = 1 << 18


class TrimmedMean(Rule):
    """Unweighted, per coordinate, over the K - 2f values in the middle."""

    name = "trimmed-mean"

    def least(self, settings: RuleSettings) -> int:
        return 2 * settings.faulty + 1

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        return lambda block: self._combine(block, settings)

    def _combine(self, block: Block, settings: RuleSettings) -> Deltas | None:
        clients = len(block.senders)
        if clients < 2 * settings.faulty + 1:
            return None
        drop = self.dropped(clients, settings)
        return ((start, middle_mean(rows, drop)) for start, rows in block.chunks())

    def dropped(self, clients: int, settings: RuleSettings) -> int:
        """How many of the clients' values are dropped on each side."""
        return settings.faulty


def middle_mean(rows: Float32s, drop: int) -> Float64s:
    """Mean over the K values of each column without the ``drop`` smallest and largest: (K, C) -> (C,)."""
    clients, columns = rows.shape
    result = np.zeros(columns, np.float64)
    width = max(1, _TILE_VALUES // clients)
    for first in range(0, columns, width):
        # A column's values side by side: NumPy sorts such short runs with vector instructions.
        by_column = np.ascontiguousarray(rows[:, first : first + width].T)  # (C', K)
        by_column.sort(axis=1)
        total = result[first : first + width]
        for rank in range(drop, clients - drop):
            total += by_column[:, rank]
    result /= clients - 2 * drop
    return result
