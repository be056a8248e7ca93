"""What a set of predictions is worth: the published measures as exact expectations, and comparisons of two arms.

The measures are SEEN's and MCO-E Net's (https://arxiv.org/abs/2310.04043 and the released evaluation of both): one pass
scores one random window per clip and the tables show means over 20 passes. Differs from the source: every window is
scored once and weighted with its probability (``data.sampling.window_law``), which is what those means estimate; all
measures that are linear in the predictions are exact so. Every rate here is a fraction in [0, 1], not a percentage.

Letters: N clips, C = 7 emotions in the order of ``names.EMOTIONS``, S subjects, K seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream

_EXACT_SUBJECTS = 14  # up to here all sign flips are tried (16,384), above they are drawn
_ROWS_AT_A_TIME = 1000  # resamples held in memory at once


class LightingScore(NamedTuple):
    """WAR under one lighting, and on how many subjects it rests."""

    war: float
    subjects: int
    clips: int


@dataclass(frozen=True)
class Scores:
    """The measures of one set of predictions; see ``score`` for each formula."""

    war: float
    uar: float
    f1p: float
    macro_f1: float
    classes: int  # emotions over which uar and macro_f1 are means
    per_emotion: dict[str, float]  # recall of the emotions present
    per_lighting: dict[str, LightingScore]  # different people in each when subjects keep to one lighting
    worst_tenth: float | None  # None without a subject of at least 5 clips
    clip_war: float | None  # None unless mean softmax values were given
    confusion: tuple[tuple[float, ...], ...]  # (C, C) expected clips, rows true, columns predicted
    n: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of numbers, lists and None."""
        lightings = {name: lighting._asdict() for name, lighting in self.per_lighting.items()}
        return {**asdict(self), "per_lighting": lightings, "confusion": [list(row) for row in self.confusion]}


class Difference(NamedTuple):
    """A paired difference of WAR, arm minus reference: its 95 % interval and its two-sided p."""

    estimate: float
    low: float
    high: float
    p: float
    subjects: int
    seeds: int


def score(
    true: NDArray[np.int64],
    expected: NDArray[np.float64],
    subjects: Sequence[str],
    lightings: Sequence[str],
    *,
    mean_softmax: NDArray[np.float64] | None = None,
    published: bool = False,
) -> Scores:
    """The measures of N clips.

    ``true`` (N,) classes; ``expected`` (N, C), for each clip the probability of each class being predicted over the
    windows that can be drawn; ``subjects`` and ``lightings`` (N,); ``mean_softmax`` (N, C), the softmax averaged over
    the windows.

    - war = mean over clips of expected[i, true[i]] (weighted average recall: the accuracy)
    - per_emotion = recall of each class, war of its clips; uar = their mean over the classes present
    - f1p = 0.33 uar + 0.67 war, the published "F1 (p = 0.33)", which is no F1 score
    - macro_f1 = mean over the classes present of 2 TP / (2 TP + FP + FN) of the expected confusion matrix
    - worst_tenth = mean war of the worst ceil(0.1 n) of the n subjects with at least 5 clips
    - clip_war = accuracy of the largest mean softmax value

    With ``published`` an absent class counts as a recall and an F1 of 0, as in the released evaluation.
    Raises ValueError for shapes that do not fit, no clips, or rows of ``expected`` that do not sum to one.
    """
    n = len(true)
    if n == 0 or expected.shape != (n, len(EMOTIONS)) or len(subjects) != n or len(lightings) != n:
        given = f"{len(subjects)} subjects, {len(lightings)} lightings"
        raise ValueError(f"{n} true classes, expectations of shape {expected.shape}, {given}")
    if not np.allclose(expected.sum(1), 1.0, atol=1e-6):
        raise ValueError("the expected predictions of a clip must sum to one")
    correct = expected[np.arange(n), true]  # (N,)
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)))  # (C, C)
    np.add.at(confusion, true, expected)
    clips_of = confusion.sum(1)  # (C,)
    present = clips_of > 0
    hits = np.diagonal(confusion)  # (C,)
    recall = hits[present] / clips_of[present]
    f1 = 2 * hits[present] / (clips_of + confusion.sum(0))[present]  # 2 TP + FP + FN = true + predicted clips
    counted = len(EMOTIONS) if published else int(present.sum())
    war, uar = float(correct.mean()), float(recall.sum() / counted)
    return Scores(
        war=war,
        uar=uar,
        f1p=0.33 * uar + 0.67 * war,
        macro_f1=float(f1.sum() / counted),
        classes=counted,
        per_emotion=dict(zip(np.array(EMOTIONS)[present].tolist(), recall.tolist(), strict=True)),
        per_lighting=_per_lighting(correct, np.asarray(subjects), np.asarray(lightings)),
        worst_tenth=_worst_tenth(correct, np.asarray(subjects)),
        clip_war=None if mean_softmax is None else float((mean_softmax.argmax(1) == true).mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        n=n,
    )


def recovered_gain(base: float, arm: float, upper: float) -> float | None:
    """(arm - base) / (upper - base): the part of what centralised training on the same clips gains that an arm reaches.

    None when upper is not above base: there is nothing to recover, and the ratio has no meaning.
    """
    return (arm - base) / (upper - base) if upper > base else None


def recovered_gain_interval(
    base: NDArray[np.float64],
    arm: NDArray[np.float64],
    upper: NDArray[np.float64],
    subjects: Sequence[str],
    *,
    seed: int,
    draws: int = 10_000,
) -> tuple[float, float] | None:
    """The 95 % interval of the recovered gain over subjects, from the expected correctness (N,) of every clip.

    Percentiles over resamples of whole subjects (as `paired_difference`). None when the upper arm is not above the
    base in more than 2.5 % of the resamples: the ratio is then unbounded.
    """
    (gained, possible), _ = _by_subject(np.stack([arm - base, upper - base]), subjects, None, draws)  # (S,) each
    who = len(gained)
    times = stream(seed, "recovered gain").multinomial(who, np.full(who, 1 / who), draws)  # (draws, S)
    return _share_interval(times @ gained, times @ possible)  # (draws,) each


def paired_difference(
    arm: NDArray[np.float64],
    reference: NDArray[np.float64],
    subjects: Sequence[str],
    *,
    seed: int,
    weights: NDArray[np.float64] | None = None,
    draws: int = 10_000,
) -> Difference:
    """WAR of ``arm`` minus WAR of ``reference``, each (K, N): expected correctness of N clips under K paired seeds.

    With ``weights`` (N,), above 0, it is the weighted mean over clips of any value that the two arms have for each.

    The interval is the 2.5th and 97.5th percentile of a bootstrap over subjects and seeds: each of ``draws`` resamples
    draws subjects with all of their clips and, independently, seeds (both with replacement; Owen 2007, "The pigeonhole
    bootstrap", since the same people are tested under every seed). p is the share of sign flips, one sign for all of a
    subject's clips, whose absolute difference reaches the observed one: all flips up to 14 subjects, else ``draws`` of
    them with the observed one counted in. It is a test over people for the seeds that were run: the luck of the seeds
    widens the interval but not p. Raises ValueError for shapes that do not fit.
    """
    if arm.shape != reference.shape:
        raise ValueError(f"arm {arm.shape}, reference {reference.shape}, {len(subjects)} subjects")
    gain, clips = _by_subject(arm - reference, subjects, weights, draws)  # (K, S), (S,)
    seeds, who = gain.shape
    generator = stream(seed, "paired difference")
    total, counted = _crossed(np.stack([gain, np.broadcast_to(clips, gain.shape)]), generator, draws)
    low, high = np.percentile(total / counted, [2.5, 97.5])
    estimate = gain.sum() / (seeds * clips.sum())
    p = _sign_flip_p(gain.mean(0), generator, draws)
    return Difference(float(estimate), float(low), float(high), p, who, seeds)


def paired_share_interval(
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    subjects: Sequence[str],
    *,
    seed: int,
    weights: NDArray[np.float64] | None = None,
    draws: int = 10_000,
) -> tuple[float, float] | None:
    """The 95 % interval of the sum of ``part`` over the sum of ``whole``, each (K, N): values of N clips under K seeds.

    Resampled, and weighted, as in `paired_difference`. None when the whole is not above 0 in more than 2.5 % of the
    resamples: the ratio is then unbounded. Raises ValueError for shapes that do not fit.
    """
    if part.shape != whole.shape:
        raise ValueError(f"part {part.shape}, whole {whole.shape}")
    sums = np.stack([_by_subject(one, subjects, weights, draws)[0] for one in (part, whole)])  # (2, K, S)
    taken, possible = _crossed(sums, stream(seed, "paired share"), draws)  # (draws,) each
    return _share_interval(taken, possible)


def nested_difference(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], Sequence[str]]],
    *,
    seed: int,
    draws: int = 10_000,
) -> Difference:
    """WAR of an arm minus a reference's where every seed tests people of its own.

    ``pairs``: for each of K seeds the expected correctness (N,) of its clips under the arm and under the reference,
    and whose clips they are. As `paired_difference`, except that a resample draws seeds and then, within every seed
    that was drawn, as many subjects as it has. Raises ValueError for shapes that do not fit.
    """
    gains, clips = [], []
    for arm, reference, subjects in pairs:
        if arm.shape != reference.shape or arm.shape != (len(subjects),) or not len(arm):
            raise ValueError(f"arm {arm.shape}, reference {reference.shape}, {len(subjects)} subjects")
        (gain,), count = _by_subject((arm - reference)[None], subjects, None, draws)  # (S,) each
        gains.append(gain)
        clips.append(count)
    generator = stream(seed, "nested difference")
    total, counted = _nested([np.stack(part) for part in zip(gains, clips, strict=True)], generator, draws)
    low, high = np.percentile(total / counted, [2.5, 97.5])
    everybody, all_clips = np.concatenate(gains), sum(count.sum() for count in clips)
    p = _sign_flip_p(everybody, generator, draws)
    return Difference(float(everybody.sum() / all_clips), float(low), float(high), p, len(everybody), len(pairs))


def nested_gain_interval(
    runs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Sequence[str]]],
    *,
    seed: int,
    draws: int = 10_000,
) -> tuple[float, float] | None:
    """The 95 % interval of the recovered gain where every seed tests people of its own.

    ``runs``: for each seed the expected correctness (N,) of its clips under the base, the arm and the upper arm, and
    whose clips they are. Resampled as `nested_difference`; None where `recovered_gain_interval` would give None.
    """
    parts = [
        _by_subject(np.stack([arm - base, upper - base]), subjects, None, draws)[0]  # (2, S)
        for base, arm, upper, subjects in runs
    ]
    gained, possible = _nested(parts, stream(seed, "nested gain"), draws)  # (draws,) each
    return _share_interval(gained, possible)


def _share_interval(gained: NDArray[np.float64], possible: NDArray[np.float64]) -> tuple[float, float] | None:
    """Percentiles of gained / possible over resamples, (draws,) each; None where too often nothing was possible."""
    if (possible <= 0).mean() > 0.025:
        return None
    low, high = np.percentile(gained[possible > 0] / possible[possible > 0], [2.5, 97.5])
    return float(low), float(high)


def _by_subject(
    values: NDArray[np.float64], subjects: Sequence[str], weights: NDArray[np.float64] | None, draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of clips (K, N) summed over each subject's, weighted (K, S), and what these count (S,)."""
    counts = np.ones(len(subjects)) if weights is None else weights
    if values.ndim != 2 or values.size == 0 or draws < 1 or {values.shape[1], len(counts)} != {len(subjects)}:
        raise ValueError(f"values {values.shape}, weights {counts.shape}, {len(subjects)} subjects, {draws} draws")
    _, of_clip = np.unique(np.asarray(subjects), return_inverse=True)  # (N,)
    summed = np.stack([np.bincount(of_clip, one) for one in (*(values * counts), counts)]).astype(np.float64)
    return summed[:-1], summed[-1]


def _crossed(parts: NDArray[np.float64], generator: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Sums over resamples of subjects and, drawn apart from them, of seeds: (C, K, S) -> (C, draws)."""
    _, seeds, subjects = parts.shape
    resampled = []
    for begin in range(0, draws, _ROWS_AT_A_TIME):
        rows = min(_ROWS_AT_A_TIME, draws - begin)
        times_subject = generator.multinomial(subjects, np.full(subjects, 1 / subjects), rows)  # (rows, S)
        times_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), rows)  # (rows, K)
        resampled.append(((times_seed @ parts) * times_subject).sum(2))  # (C, rows)
    return np.concatenate(resampled, axis=1)


def _nested(
    parts: Sequence[NDArray[np.float64]], generator: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    """Sums over resamples of seeds and, within every seed drawn, of its subjects: K of (C, S) -> (C, draws)."""
    times = generator.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), draws)  # (draws, K)
    total = np.zeros((len(parts[0]), draws))
    for chosen, part in zip(times.T, parts, strict=True):
        subjects = part.shape[1]
        people = generator.multinomial(chosen * subjects, np.full(subjects, 1 / subjects))  # (draws, S)
        total += part @ people.T
    return total


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of two classifiers doing equally well on the same clips, from those that only one of them recognises.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
    https://doi.org/10.1007/BF02295996, in its exact form: when both do equally well, ``only_first`` is binomial over
    the clips that tell them apart, with probability 1/2. p is twice the smaller tail, at most 1.
    """
    apart, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(apart, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << apart))


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """p values adjusted for being so many (Holm 1979, "A simple sequentially rejective multiple test procedure")."""
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def _per_lighting(
    correct: NDArray[np.float64], subjects: NDArray[np.str_], lightings: NDArray[np.str_]
) -> dict[str, LightingScore]:
    under = {name: lightings == name for name in LIGHTINGS if (lightings == name).any()}
    return {
        name: LightingScore(float(correct[mask].mean()), len(np.unique(subjects[mask])), int(mask.sum()))
        for name, mask in under.items()
    }


def _worst_tenth(correct: NDArray[np.float64], subjects: NDArray[np.str_]) -> float | None:
    wars = sorted(
        float(correct[subjects == subject].mean())
        for subject in np.unique(subjects)
        if (subjects == subject).sum() >= 5
    )
    return float(np.mean(wars[: math.ceil(len(wars) / 10)])) if wars else None


def _sign_flip_p(gain: NDArray[np.float64], generator: np.random.Generator, draws: int) -> float:
    """``gain`` (S,): summed difference of each subject."""
    # the tolerance: the same numbers summed in another order count as equal
    observed = abs(gain.sum()) - 1e-12 * np.abs(gain).sum()
    if len(gain) <= _EXACT_SUBJECTS:
        flips = np.arange(2 ** len(gain))[:, None] >> np.arange(len(gain)) & 1  # (2^S, S)
        return float((np.abs((1 - 2 * flips) @ gain) >= observed).mean())
    reached = 1  # the observed signs themselves
    for begin in range(0, draws, _ROWS_AT_A_TIME):
        flips = generator.integers(2, size=(min(_ROWS_AT_A_TIME, draws - begin), len(gain)))
        reached += int((np.abs((1 - 2 * flips) @ gain) >= observed).sum())
    return reached / (draws + 1)
