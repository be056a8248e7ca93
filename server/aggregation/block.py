"""A block of an update: its shared tensors, or one expert's, as columns over the clients that sent it.

Design and rules speak of two kinds of block. The shared block is everything that every accepted client sent; the block
of an expert is that expert's tensors, over the clients that used it. A block's tensors, flattened and in name order,
are one row of columns; K updates are K rows, in update-id order, which are read from the spool chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mcoe_model.update import TensorSpec
from server.aggregation.rule import TILE, Contribution, Float32s, Float64s
from server.spool import SpooledUpdate

#: A chunk holds K x C float32 in about this many bytes, and a rule works on it in float64.
CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Block:
    """``expert`` is None for shared tensors. ``senders`` and ``updates`` agree in order.

    ``scales``, where given, holds what each sender's row is multiplied by when it is read.
    """

    expert: int | None
    tensors: tuple[tuple[str, TensorSpec], ...]
    senders: Sequence[Contribution]
    updates: Sequence[SpooledUpdate]
    scales: Sequence[float] | None = None

    @cached_property
    def size(self) -> int:
        """Columns of the block."""
        return sum(spec.size for _, spec in self.tensors)

    def only(self, indices: Sequence[int]) -> Block:
        """The block of the senders at these places, in this order."""
        return replace(
            self,
            senders=[self.senders[index] for index in indices],
            updates=[self.updates[index] for index in indices],
            scales=None if self.scales is None else [self.scales[index] for index in indices],
        )

    def chunks(self) -> Iterator[tuple[int, Float32s]]:
        """First column and rows (K, C) of each chunk, in column order."""
        for start, rows in self._read(self.updates):
            if self.scales is not None:
                rows *= np.asarray(self.scales, np.float32)[:, None]
            yield start, rows

    def gram(self) -> Float64s:
        """Inner products of the clients' rows: (K, K) float64. The last digits depend on how the chunks fall."""
        total = np.zeros((len(self.senders), len(self.senders)), np.float64)
        for _, rows in self.chunks():
            for first in range(0, rows.shape[1], TILE):
                exact = rows[:, first : first + TILE].astype(np.float64)
                total += exact @ exact.T
        return total

    def norms(self, *more: SpooledUpdate) -> Float64s:
        """Euclidean norm of each client's row as it was sent, then of these updates' rows: (K + more,)."""
        squares = np.zeros(len(self.updates) + len(more), np.float64)
        for _, rows in self._read([*self.updates, *more]):
            _add_products(squares, rows, rows)
        return np.sqrt(squares)

    def products(self, reference: SpooledUpdate) -> Float64s:
        """Inner product of each client's row, as it was sent, with a reference's: (K,)."""
        products = np.zeros(len(self.updates), np.float64)
        for _, rows in self._read([*self.updates, reference]):
            _add_products(products, rows[:-1], [rows[-1]] * len(products))
        return products

    def _read(self, updates: Sequence[SpooledUpdate]) -> Iterator[tuple[int, Float32s]]:
        """The chunks of these updates' rows as they were sent."""
        width = max(1, CHUNK_BYTES // (8 * max(1, len(updates))))
        for start in range(0, self.size, width):
            stop = min(start + width, self.size)
            columns = list(self._columns(start, stop))
            rows = np.empty((len(updates), stop - start), np.float32)
            for row, update in zip(rows, updates, strict=True):
                update.read(columns, row)
            yield start, rows

    def _columns(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """The parts of tensors that lie in columns start..stop of the block."""
        begin = 0
        for name, spec in self.tensors:
            end = begin + spec.size
            if begin < stop and end > start and spec.size:
                yield name, max(start, begin) - begin, min(stop, end) - begin
            begin = end


def _add_products(totals: Float64s, rows: Float32s, others: Iterable[Float32s]) -> None:
    """Add to each total (K,) the inner product of its rows, one column after the other.

    A running sum, unlike a pairwise or a BLAS one, does not depend on how the columns are split into chunks.
    """
    products = np.empty(1 + min(TILE, rows.shape[1]), np.float64)
    for index, (row, other) in enumerate(zip(rows, others, strict=True)):
        for first in range(0, len(row), TILE):
            part = row[first : first + TILE]
            running = products[: 1 + len(part)]
            running[0] = totals[index]
            np.multiply(part, other[first : first + TILE], out=running[1:], dtype=np.float64)
            totals[index] = np.add.accumulate(running, out=running)[-1]
