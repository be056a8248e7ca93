"""Two models on the same labelled clips: which recognises what, and whether the newer one is worse. NumPy only.

It is worse when the clips that only the other one recognises are more, and too many for chance: the exact test of
McNemar at 5 %. Fewer than 20 clips, or clips of one emotion, say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from client.said import Said
from mcoe_model.learning.metrics import mcnemar

FEWEST_CLIPS = 20
FEWEST_EMOTIONS = 2
LEVEL = 0.05

Verdict = Literal["none", "passed", "worse"]


@dataclass(frozen=True)
class Comparison:
    """A newer model beside the one that is served: the clips and emotions that both saw, and who recognised what."""

    clips: int
    emotions: int
    newer: int  # clips that the newer one recognises
    served: int
    only_newer: int  # clips that only the newer one recognises
    only_served: int

    @property
    def p(self) -> float:
        """The chance of a difference this large between models that do equally well."""
        return mcnemar(self.only_newer, self.only_served)

    @property
    def verdict(self) -> Verdict:
        """See the module."""
        if self.clips < FEWEST_CLIPS or self.emotions < FEWEST_EMOTIONS:
            return "none"
        return "worse" if self.only_served > self.only_newer and self.p < LEVEL else "passed"

    def in_words(self) -> Said:
        """For the wearer."""
        if self.verdict == "none":
            return Said(
                "live.no_verdict",
                "no verdict: {clips} labelled clips of {emotions} expressions, "
                "{fewest_clips} of {fewest_emotions} expressions are needed",
                clips=self.clips,
                emotions=self.emotions,
                fewest_clips=FEWEST_CLIPS,
                fewest_emotions=FEWEST_EMOTIONS,
            )
        return Said(
            "live.compared",
            "the new model recognises {newer} of your {clips} clips, yours {served} (p = {p:.3f})",
            newer=self.newer,
            clips=self.clips,
            served=self.served,
            p=self.p,
        )


def compare(labels: Sequence[int], newer: Sequence[bool], served: Sequence[bool]) -> Comparison:
    """What two models recognised of the same clips (N,), whose emotions are ``labels``."""
    pairs = list(zip(newer, served, strict=True))
    only_newer, only_served = pairs.count((True, False)), pairs.count((False, True))
    return Comparison(len(labels), len(set(labels)), sum(newer), sum(served), only_newer, only_served)


def stored_comparison(stored: object) -> Comparison | None:
    """A comparison from a file; None for what is none, such as the words that an earlier version kept there."""
    try:
        return Comparison(**{name: int(value) for name, value in stored.items()}) if isinstance(stored, dict) else None
    except (TypeError, ValueError):
        return None
