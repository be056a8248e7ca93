"""Whether the way clips are routed separates groups of them: lightings, emotions, subjects.

The measure is the share of the vectors' variance that lies between the groups' means, SS_between / SS_total summed over
the experts: eta squared, the multivariate analysis of variance with Euclidean distances of Anderson 2001
(https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x). By chance it is not 0, and the more groups there are the larger:
so it is compared with what it is when labels are permuted among what may be exchanged (Anderson and ter Braak 2003,
https://doi.org/10.1080/00949650215733). That is

- an emotion among the clips of one subject;
- a subject among the clips of one emotion in one lighting, in which it is nested where it keeps to one;
- a lighting among whole subjects where each keeps to one lighting, else among the clips of one subject.

Letters: N clips, E experts, G groups, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.reader import ClipRecord
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
#: Labels (N,) as they might have been, drawn.
Exchange = Callable[[np.random.Generator], Labels]

DRAWS = 999


@dataclass(frozen=True)
class Shown:
    """What each of N clips shows, as whole numbers (N,)."""

    lighting: Labels
    emotion: Labels
    subject: Labels

    @staticmethod
    def of(records: Sequence[ClipRecord]) -> Shown:
        subjects = sorted({record.subject for record in records})
        return Shown(
            np.array([LIGHTINGS.index(record.lighting) for record in records]),
            np.array([record.class_index for record in records]),
            np.array([subjects.index(record.subject) for record in records]),
        )


@dataclass(frozen=True)
class Separation:
    """The share between groups, and the same of permuted labels: ``chance`` (D,)."""

    share: float
    chance: Floats

    @property
    def p(self) -> float:
        """How often permuted labels explain as much, the labels themselves counted in."""
        reached = int((self.chance >= self.share - 1e-12).sum())
        return (1 + reached) / (1 + len(self.chance))


def pool(found: Sequence[Separation]) -> Separation:
    """The mean share of sets of clips that were permuted independently, all as often."""
    return Separation(float(np.mean([one.share for one in found])), np.mean([one.chance for one in found], axis=0))


def separate(vectors: Floats, shown: Shown, seed: int) -> dict[str, Separation]:
    """Lighting, emotion and subject -> how far each separates the vectors (N, E) of clips that show this."""
    cell = shown.lighting * len(EMOTIONS) + shown.emotion  # (N,)
    nested = len(set(zip(shown.subject, shown.lighting, strict=True))) == len(set(shown.subject))
    exchange_lighting = permute_units if nested else permute_within
    exchanges: dict[str, tuple[Labels, Exchange]] = {
        "lighting": (shown.lighting, lambda random: exchange_lighting(shown.lighting, shown.subject, random)),
        "emotion": (shown.emotion, lambda random: permute_within(shown.emotion, shown.subject, random)),
        "subject": (shown.subject, lambda random: permute_within(shown.subject, cell, random)),
    }
    found = {}
    for name, (labels, exchange) in exchanges.items():
        random = stream(seed, "load separation", name)
        chance = np.array([explained(vectors, exchange(random)) for _ in range(DRAWS)])
        found[name] = Separation(explained(vectors, labels), chance)
    return found


def explained(vectors: Floats, groups: Labels) -> float:
    """The share, 0 to 1, of the variance of vectors (N, E) that lies between groups (N,); 0 where all are the same."""
    centred = vectors - vectors.mean(axis=0)  # (N, E)
    names, of = np.unique(groups, return_inverse=True)
    member = np.eye(len(names))[of]  # (N, G)
    between = np.square(member.T @ centred).sum(axis=1) / member.sum(axis=0)  # (G,)
    total = np.square(centred).sum()
    return float(between.sum() / total) if total > 0 else 0.0


def permute_within(groups: Labels, within: Labels, random: np.random.Generator) -> Labels:
    """Groups' labels (N,) exchanged among the clips that are alike in ``within`` (N,)."""
    permuted = np.empty_like(groups)
    permuted[np.argsort(within, kind="stable")] = groups[np.lexsort((random.random(len(groups)), within))]
    return permuted


def permute_units(groups: Labels, units: Labels, random: np.random.Generator) -> Labels:
    """Groups' labels (N,) exchanged among whole units (N,), of which each has one label."""
    _, first, of = np.unique(units, return_index=True, return_inverse=True)
    permuted: Labels = random.permutation(groups[first])[of]
    return permuted
