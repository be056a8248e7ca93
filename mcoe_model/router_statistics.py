"""How a client's clips were routed: per expert the routed count and the gate mass. NumPy only.

Counted in one evaluation pass of the base model over the client's new clips, before training, so that every client of a
round is measured by the same router.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RouterStatistics:
    """Statistics of ``examples`` routed clips over E experts.

    ``routed[e]`` is the number of clips that chose expert e among their top k (they sum exactly to examples x top_k);
    ``gate_mass[e]`` is the sum of the gate's probability for e over all clips (they sum to examples). A model without
    experts has E and ``top_k`` 0, and both are empty.
    """

    examples: int
    top_k: int
    routed: tuple[int, ...]
    gate_mass: tuple[float, ...]

    @staticmethod
    def count(gate: NDArray[np.floating[Any]], chosen: NDArray[np.integer[Any]]) -> RouterStatistics:
        """From the gate's probabilities (n, E) and the chosen experts (n, k)."""
        experts = gate.shape[1]
        routed = np.bincount(chosen.reshape(-1), minlength=experts)
        mass = gate.astype(np.float64).sum(axis=0)
        return RouterStatistics(
            len(gate), chosen.shape[1], tuple(int(count) for count in routed), tuple(float(m) for m in mass)
        )

    @staticmethod
    def none(experts: int, top_k: int) -> RouterStatistics:
        """The statistics of no clips: the neutral element of addition."""
        return RouterStatistics(0, top_k, (0,) * experts, (0.0,) * experts)

    def __add__(self, other: RouterStatistics) -> RouterStatistics:
        """The statistics of both sets of clips. Raises ValueError when experts or top k differ."""
        if (len(self.routed), self.top_k) != (len(other.routed), other.top_k):
            raise ValueError(
                f"cannot add statistics of {len(self.routed)} experts, top {self.top_k} "
                f"to {len(other.routed)} experts, top {other.top_k}"
            )
        return RouterStatistics(
            self.examples + other.examples,
            self.top_k,
            tuple(a + b for a, b in zip(self.routed, other.routed, strict=True)),
            tuple(a + b for a, b in zip(self.gate_mass, other.gate_mass, strict=True)),
        )

    @property
    def load(self) -> tuple[float, ...]:
        """The share of routed choices that each expert received; zeros when nothing was routed."""
        total = sum(self.routed)
        return tuple(count / total if total else 0.0 for count in self.routed)

    def faults(self, *, examples: int, experts: int, top_k: int) -> list[str]:
        """What is wrong with these statistics for a client that reports ``examples`` clips; empty when nothing is."""
        if len(self.routed) != experts or len(self.gate_mass) != experts:
            return [f"router statistics of {len(self.routed)}/{len(self.gate_mass)} experts, the model has {experts}"]
        found = []
        if self.top_k != top_k:
            found.append(f"router statistics for top {self.top_k}, the model routes to {top_k}")
        if self.examples != examples:
            found.append(f"router statistics of {self.examples} examples, the report says {examples}")
        if any(count < 0 or count > self.examples for count in self.routed):
            found.append("a routed count is negative or larger than the number of examples")
        if sum(self.routed) != self.examples * top_k:
            found.append(f"routed counts sum to {sum(self.routed)}, not to {self.examples} x {top_k}")
        mass, wanted = np.asarray(self.gate_mass), self.examples if experts else 0
        if not np.isfinite(mass).all() or (mass < 0).any() or abs(mass.sum() - wanted) > 1e-3 * self.examples:
            found.append("gate masses are not finite, negative, or do not sum to the number of examples")
        return found

    def to_record(self) -> dict[str, int | list[int] | list[float]]:
        """Plain values for a message or a row."""
        return {
            "router-examples": self.examples,
            "router-top-k": self.top_k,
            "router-routed": list(self.routed),
            "router-gate-mass": list(self.gate_mass),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> RouterStatistics:
        """From the values of `to_record`. Raises ValueError when one is absent or of the wrong type."""
        try:
            examples, top_k = record["router-examples"], record["router-top-k"]
            routed, mass = record["router-routed"], record["router-gate-mass"]
        except KeyError as fault:
            raise ValueError(f"router statistics are incomplete: {fault}") from fault
        if not isinstance(routed, list | tuple) or not isinstance(mass, list | tuple):
            raise ValueError("router statistics hold a value that is not a list")
        if not all(is_whole(value) for value in [examples, top_k, *routed]):
            raise ValueError("router statistics hold a count that is not a whole number of 64 bits")
        if not all(type(value) is float or is_whole(value) for value in mass):
            raise ValueError("router statistics hold a gate mass that is not a number")
        return RouterStatistics(examples, top_k, tuple(routed), tuple(float(value) for value in mass))


def is_whole(value: object) -> bool:
    """Whether a value is an int (no bool) that a message can carry: 64 bits, signed."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63
