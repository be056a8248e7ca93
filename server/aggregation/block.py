"""A block of an update: its shared tensors, or one expert's, as columns over the clients that sent it.

Design and rules speak of two kinds of block. The shared block is everything that every accepted client sent; the block
of an expert is that expert's tensors, over the clients that used it. A block's tensors, flattened and in name order,
are one row of columns; K updates are K rows, in update-id order, which are read from the spool chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mcoe_model.update import TensorSpec
from server.aggregation.rule import Contribution, Float32s, Float64s
from server.spool import SpooledUpdate

#: What a chunk of K x C float32 and a few results (C,) in float64 take at most, in about this many bytes.
CHUNK_BYTES = 32 << 20

#: Columns that are summed at a time over a whole block: a chunk holds at least so many.
TILE = 1 << 10


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
        """First column and rows (K, C) of each chunk, in column order; the next chunk overwrites the rows."""
        for start, rows in self._read(self.updates):
            if self.scales is not None:
                rows *= np.asarray(self.scales, np.float32)[:, None]
            yield start, rows

    def gram(self) -> Float64s:
        """Inner products of the clients' rows as they were sent: (K, K), to about seven digits.

        In float32 within TILE columns, which takes half the time, and in float64 from one tile to the next. Where
        float32 is too small the result is not finite.
        """
        total = np.zeros((len(self.updates), len(self.updates)), np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for tile in self._tiles(self.updates):
                total += tile @ tile.T
        return total

    def norms(self, *more: SpooledUpdate) -> Float64s:
        """Euclidean norm of each client's row as it was sent, then of these updates' rows: (K + more,)."""
        squares = np.zeros(len(self.updates) + len(more), np.float64)
        for tile in self._tiles([*self.updates, *more]):
            squares += np.einsum("kc,kc->k", tile, tile, dtype=np.float64)
        return np.sqrt(squares)

    def products(self, reference: SpooledUpdate) -> Float64s:
        """Inner product of each client's row, as it was sent, with a reference's: (K,)."""
        products = np.zeros(len(self.updates), np.float64)
        for tile in self._tiles([*self.updates, reference]):
            products += np.einsum("kc,c->k", tile[:-1], tile[-1], dtype=np.float64)
        return products

    def _tiles(self, updates: Sequence[SpooledUpdate]) -> Iterator[Float32s]:
        """The rows, TILE columns at a time, so that sums over columns are the same for any chunks."""
        for _, rows in self._read(updates):
            for first in range(0, rows.shape[1], TILE):
                yield rows[:, first : first + TILE]

    def _read(self, updates: Sequence[SpooledUpdate]) -> Iterator[tuple[int, Float32s]]:
        """The chunks of these updates' rows as they were sent, whole tiles each but the last."""
        width = TILE * max(1, CHUNK_BYTES // (8 * TILE * (len(updates) + 3)))
        # Used again for every chunk, since fresh pages cost as much as reading. Rows a power of two apart would fall
        # on the same lines of the cache; a little room between them parts them.
        buffer = np.empty((len(updates), min(width, self.size) + 16), np.float32)
        for start in range(0, self.size, width):
            stop = min(start + width, self.size)
            columns = list(self._columns(start, stop))
            rows = buffer[:, : stop - start]
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
