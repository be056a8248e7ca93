"""What an aggregation rule is: a pure function that says how the columns of a block are combined.

Rules see K updates as rows of a (K, C) array of float32 deltas (trained minus base), always in update-id order, and
return the aggregated delta (C,) in float64. Once combining has begun, a column's result depends on that column alone,
so any split into chunks gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import SettingsError
from mcoe_model.router_statistics import RouterStatistics

if TYPE_CHECKING:
    from server.aggregation.block import Block

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class RuleSettings:
    """Bounds that keep one client from deciding for all, and the shrinkage of rarely used experts.

    - ``max_examples``: a client's number of clips counts at most this much.
    - ``max_gate_mass``: likewise its gate mass for one expert.
    - ``kappa``: clips' worth of gate mass that pull an expert towards its old value (expert-weighted mean).
    - ``faulty``: clients assumed hostile (f); a robust rule leaves an expert alone below 2f + 1 senders.
    """

    max_examples: int = 1000
    max_gate_mass: float = 500.0
    kappa: float = 1.0
    faulty: int = 1

    def __post_init__(self) -> None:
        found = []
        if self.max_examples < 1:
            found.append(f"max examples must be at least 1, not {self.max_examples}")
        if not self.max_gate_mass > 0:
            found.append(f"max gate mass must be above 0, not {self.max_gate_mass}")
        if not self.kappa >= 0:
            found.append(f"kappa must not be negative, not {self.kappa}")
        if self.faulty < 0:
            found.append(f"faulty must not be negative, not {self.faulty}")
        if found:
            raise SettingsError(found)


@dataclass(frozen=True)
class Contribution:
    """What a rule may know of one accepted update besides its tensors."""

    update_id: str
    client_id: str
    examples: int
    router: RouterStatistics


#: Turns rows (K, C) into the aggregated delta (C,).
Combine = Callable[[Float32s], Float64s]


class Rule(Protocol):
    """One aggregation rule. It may look at a whole block, chunk by chunk, before it says how columns are combined."""

    def combine(self, block: Block, settings: RuleSettings) -> Combine | None:
        """How the columns of this block become one; None to leave the block as it is."""
        ...


#: Columns that are summed at a time, so that the sums stay in a processor's cache.
_TILE = 1 << 15


def weighted_sum(rows: Float32s, weights: Sequence[float]) -> Float64s:
    """Sum of weight x row in float64, row by row, so that the order of additions is fixed: (K, C), K -> (C,)."""
    total = np.zeros(rows.shape[1], np.float64)
    product = np.empty(min(_TILE, rows.shape[1]), np.float64)
    for start in range(0, rows.shape[1], _TILE):
        tile = total[start : start + _TILE]
        scratch = product[: len(tile)]
        for row, weight in zip(rows, weights, strict=True):
            np.multiply(row[start : start + _TILE], weight, out=scratch, dtype=np.float64)
            tile += scratch
    return total
