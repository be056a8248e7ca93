"""The measures of a comparison person by person, and differences between methods with intervals over people and seeds.

A measure is a mean over clips in which each clip counts as much as its domain lets it: ACC that of the last accuracy
over all held-out clips, forgetting that of the fall from a domain's best stage, which is the whole domain's. So people
who share a device, as with the stream `subjects`, are told apart, and where everybody has a device of their own it is
the mean over devices. The same people learn under every seed, so people and seeds are resampled apart from each other.

Letters: K seeds, D devices, T stages, N clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.reader import ClipRecord
from mcoe_model.learning.metrics import Difference, holm, paired_difference, paired_share_interval
from simulations.lessons import Learned

Measure = Literal["acc", "forgetting"]

@dataclass(frozen=True, eq=False)
class ByClip:
    """A measure of every clip that has one, under every seed, how much each counts (in all 1), and whose it is."""

    values: NDArray[np.float64]  # (K, N)
    weights: NDArray[np.float64]  # (N,), above 0
    people: tuple[str, ...]  # (N,)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a method with a limit."""

    own: NDArray[np.float64]  # (K, D, T + 1, T) R on own held-out clips
    unseen: NDArray[np.float64]  # (K, D, T + 1, T) R on unseen people
    bytes_kept: NDArray[np.int64]  # (K, D)
    rejected: NDArray[np.int64]  # (K, D)
    acc: ByClip
    forgetting: ByClip

    @staticmethod
    def of(found: Sequence[Sequence[Learned]], records: Sequence[ClipRecord]) -> Outcome:
        """Of what came of every seed on every device, (K, D)."""
        return Outcome(
            np.array([[one.own for one in row] for row in found]),
            np.array([[one.unseen for one in row] for row in found]),
            np.array([[one.bytes_kept for one in row] for row in found]),
            np.array([[one.rejected for one in row] for row in found]),
            by_clip(found, "acc", records),
            by_clip(found, "forgetting", records),
        )


def by_clip(found: Sequence[Sequence[Learned]], measure: Measure, records: Sequence[ClipRecord]) -> ByClip:
    """The measure clip by clip: its weighted mean is the mean over devices and seeds of the streams' own."""
    of_clip = _last if measure == "acc" else _fallen
    values = np.array([np.concatenate([of_clip(one) for one in row]) for row in found])  # (K, N)
    asked = [one.questions for one in found[0]]
    weights = np.concatenate([_weights(q.held_out if measure == "acc" else q.held_out[:-1]) for q in asked])
    people = [records[clip].subject for q in asked for clip in q.clips]
    counts = weights > 0
    whose = tuple(person for person, there in zip(people, counts, strict=True) if there)
    return ByClip(values[:, counts], weights[counts] / len(asked), whose)


def by_person(one: ByClip) -> NDArray[np.float64]:
    """The measure of each person under every seed, people in ascending order: (K, people)."""
    who, of_clip = np.unique(one.people, return_inverse=True)  # (N,)
    counts = np.bincount(of_clip, one.weights)
    return np.array([np.bincount(of_clip, row, len(who)) / counts for row in one.values * one.weights])


def differences(arms: Sequence[ByClip], reference: ByClip) -> list[dict[str, Any]] | None:
    """Each arm less the reference, paired, with Holm's p over the arms; None where there is one person only."""
    if len(set(reference.people)) < 2:
        return None
    found: list[Difference] = [
        paired_difference(arm.values, reference.values, reference.people, weights=reference.weights, seed=0)
        for arm in arms
    ]
    return [one._asdict() | {"p_holm": p} for one, p in zip(found, holm([one.p for one in found]), strict=True)]


def removed_interval(naive: ByClip, method: ByClip) -> tuple[float, float] | None:
    """The 95 % interval of the share of naive fine-tuning's forgetting that a method takes away.

    None where there is one person only, or where naive fine-tuning may forget nothing.
    """
    if len(set(naive.people)) < 2:
        return None
    taken = naive.values - method.values
    return paired_share_interval(taken, naive.values, naive.people, weights=naive.weights, seed=0)


def _last(one: Learned) -> NDArray[np.float64]:
    """How much of each clip is recognised at the end: (N,)."""
    last: NDArray[np.float64] = one.correct[-1]
    return last


def _fallen(one: Learned) -> NDArray[np.float64]:
    """Of each clip of an earlier domain, the best stage of that domain less the last; of others 0: (N,)."""
    fallen = np.zeros(len(one.questions.clips))
    for domain, clips in enumerate(one.questions.held_out[:-1]):
        best = domain + 1 + int(one.own[domain + 1 : -1, domain].argmax())
        fallen[clips] = (one.correct[best] - one.correct[-1])[clips]
    return fallen


def _weights(domains: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much each clip (N,) counts where every domain (T, N) counts the same, in all 1."""
    weights: NDArray[np.float64] = (domains / domains.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights
