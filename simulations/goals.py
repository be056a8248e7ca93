"""Whether a goal is reached, as far as a 95 % interval tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Verdict = Literal["met", "not met", "not resolved"]
Bounds = tuple[float, float] | None


def at_least(between: Bounds, goal: float) -> Verdict:
    """Whether what lies in this interval is at least ``goal``; not resolved where there is no interval."""
    if between is None:
        return "not resolved"
    low, high = between
    return "met" if low >= goal else "not met" if high < goal else "not resolved"


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Met where every one is, not met where any is not."""
    said = set(verdicts)
    return "not met" if "not met" in said else "met" if said == {"met"} else "not resolved"
