"""A block of an update: its shared tensors, or one expert's, as columns over the clients that sent it.

Design and rules speak of two kinds of block. The shared block is everything that every accepted client sent; the block
of an expert is that expert's tensors, over the clients that used it. A block's tensors, flattened and in name order,
are one row of columns; K updates are K rows, in update-id order, which are read from the spool chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mcoe_model.update import TensorSpec
from server.aggregation.rule import Contribution, Float32s, Float64s
from server.spool import SpooledUpdate

#: A chunk holds K x C float32 in about this many bytes, and a rule works on it in float64.
CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Block:
    """``expert`` is None for the shared block. ``senders`` and ``updates`` agree in order and hold at least one."""

    expert: int | None
    tensors: tuple[tuple[str, TensorSpec], ...]
    senders: Sequence[Contribution]
    updates: Sequence[SpooledUpdate]

    @cached_property
    def size(self) -> int:
        """Columns of the block."""
        return sum(spec.size for _, spec in self.tensors)

    def chunks(self) -> Iterator[tuple[int, Float32s]]:
        """First column and rows (K, C) of each chunk, in column order."""
        width = max(1, CHUNK_BYTES // (8 * len(self.senders)))
        for start in range(0, self.size, width):
            stop = min(start + width, self.size)
            columns = list(self._columns(start, stop))
            rows = np.empty((len(self.senders), stop - start), np.float32)
            for row, update in zip(rows, self.updates, strict=True):
                update.read(columns, row)
            yield start, rows

    def gram(self) -> Float64s:
        """Inner products of the clients' rows: (K, K) float64."""
        total = np.zeros((len(self.senders), len(self.senders)), np.float64)
        for _, rows in self.chunks():
            exact = rows.astype(np.float64)
            total += exact @ exact.T
        return total

    def _columns(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """The parts of tensors that lie in columns start..stop of the block."""
        begin = 0
        for name, spec in self.tensors:
            end = begin + spec.size
            if begin < stop and end > start and spec.size:
                yield name, max(start, begin) - begin, min(stop, end) - begin
            begin = end
