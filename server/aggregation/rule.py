"""What an aggregation rule is: a pure function that says how the columns of a block are combined.

Rules see K updates as rows of a (K, C) array of float32 deltas (trained minus base), always in update-id order, and
yield the aggregated delta (C,) in float64, chunk by chunk. Whatever a rule learns from a whole block it learns in a way
that no split into chunks changes, and from then on a column's result depends on that column alone: any chunks give the
same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import SettingsError
from mcoe_model.router_statistics import RouterStatistics
from server.spool import SpooledUpdate

if TYPE_CHECKING:
    from server.aggregation.block import Block

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]

RouterMode = Literal["averaged", "damped", "kept"]
ROUTER_MODES: tuple[RouterMode, ...] = ("averaged", "damped", "kept")


@dataclass(frozen=True)
class RuleSettings:
    """Bounds that keep one client from deciding for all, and the shrinkage of rarely used experts.

    - ``max_examples``: a client's number of clips counts at most this much.
    - ``max_gate_mass``: likewise its gate mass for one expert.
    - ``kappa``: clips' worth of gate mass that pull an expert towards its old value (expert-weighted mean).
    - ``faulty``: clients assumed hostile (f); a robust rule leaves an expert alone below 2f + 1 senders.
    - ``staleness_exponent``: a of the weight (1 + tau)^-a of an update that is tau versions old; 0 for none.
    - ``router``: what becomes of the router's tensors. `averaged`: the same as of every shared tensor. `damped`: a
      client's part is scaled by how far its routing agrees with the cohort's. `kept`: they stay as in the base.
    """

    max_examples: int = 1000
    max_gate_mass: float = 500.0
    kappa: float = 1.0
    faulty: int = 1
    router: RouterMode = "averaged"
    staleness_exponent: float = 0.5

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
        if not 0 <= self.staleness_exponent < float("inf"):
            found.append(f"staleness exponent must not be negative and be finite, not {self.staleness_exponent}")
        if self.router not in ROUTER_MODES:
            found.append(f"router must be one of {', '.join(ROUTER_MODES)}, not {self.router!r}")
        if found:
            raise SettingsError(found)


@dataclass(frozen=True)
class Contribution:
    """What a rule may know of one accepted update besides its tensors.

    ``staleness``: how many versions lie between its base and the round's.
    """

    update_id: str
    client_id: str
    examples: int
    router: RouterStatistics
    staleness: int = 0


#: First column and aggregated delta (C,) of each chunk, in column order.
Deltas = Iterator[tuple[int, Float64s]]
#: The aggregated delta of a block; None to leave the block as it is.
Plan = Callable[["Block"], Deltas | None]


class Rule(ABC):
    """One aggregation rule.

    - ``name``: how settings name it.
    - ``needs_reference``: whether it compares with an update that the server computed itself.
    - ``needs_every_expert``: whether every update must hold every expert, used or not.
    """

    name: ClassVar[str]
    needs_reference: ClassVar[bool] = False
    needs_every_expert: ClassVar[bool] = False

    def least(self, settings: RuleSettings) -> int:
        """The fewest updates it can work with; a round with fewer has to be abandoned."""
        return 1

    @abstractmethod
    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        """How each block of a round is aggregated.

        It may first look at everything that all clients sent, ``shared``, and choose or weigh the clients by it. The
        plan is then asked for the shared tensors (in one block, or without the router and the router) and each expert.
        ``reference`` is the server's own update, there when the rule needs one.
        """


#: Columns that are summed at a time, so that the sums stay in a processor's cache.
_TILE = 1 << 13


def weighted_sum(block: Block, weights: Sequence[float]) -> Deltas:
    """Sum of weight x row in float64, row by row, so that the order of additions is fixed.

    ``weights`` (K,) agree with the block's senders; the file of one without weight is not read.
    """
    counted = [index for index, weight in enumerate(weights) if weight]
    for start, rows in block.only(counted).chunks():
        total = np.zeros(rows.shape[1], np.float64)
        product = np.empty(min(_TILE, rows.shape[1]), np.float64)
        for first in range(0, rows.shape[1], _TILE):
            tile = total[first : first + _TILE]
            scratch = product[: len(tile)]
            for row, index in zip(rows, counted, strict=True):
                np.multiply(row[first : first + _TILE], weights[index], out=scratch, dtype=np.float64)
                tile += scratch
        yield start, total
