"""How well micro-expressions are recognised when every subject is left out once: UF1 and UAR, pooled, as they compare.

See et al. 2019, "MEGC 2019 - The Second Facial Micro-Expressions Grand Challenge", FG 2019 (evaluation on the composite
database): true positives, false positives and false negatives of each class are summed over all folds, and only then
made into the unweighted F1 (UF1) and the unweighted average recall (UAR).

`best_epoch_mean` is what CMFNet's released code prints in their place. It is named for what it is, and compares with
nothing else: it chooses the epoch on the subject that is left out, and its mean over folds gives a subject with one
clip as much weight as one with thirty.

Letters: C classes, N clips, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fold(NamedTuple):
    """One subject left out: its clips' classes (N,), and what was predicted of them after every epoch (E, N)."""

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]


class Unweighted(NamedTuple):
    """Means over classes, whatever their numbers of clips."""

    uf1: float
    uar: float


def confusion(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts (C, C), rows true, columns predicted, of N clips."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def pooled(folds: Sequence[Fold], classes: int) -> NDArray[np.int64]:
    """The confusion (C, C) summed over folds, of what was predicted after the last epoch."""
    return sum(
        (confusion(fold.true, fold.predicted[-1], classes) for fold in folds), np.zeros((classes, classes), np.int64)
    )


def unweighted(counts: NDArray[np.int64]) -> Unweighted:
    """UF1 and UAR of a confusion (C, C).

    F1 of class c is 2 TP / (2 TP + FP + FN), its recall TP / (TP + FN). Means are over all C classes: one that nobody
    shows has a recall of 0, and an F1 of 0 too.
    """
    hits, shown, said = np.diagonal(counts), counts.sum(1), counts.sum(0)  # (C,) each
    f1 = 2 * hits / np.maximum(shown + said, 1)  # 2 TP + FP + FN = shown + said
    return Unweighted(float(f1.mean()), float((hits / np.maximum(shown, 1)).mean()))


def best_epoch_mean(folds: Sequence[Fold], classes: int) -> Unweighted:
    """What the released code prints: the mean over folds of each fold's own UF1 and UAR, at its best epoch.

    The epoch is chosen on the clips that are scored, by UF1, then UAR, the first of equals. Where every clip of a fold
    is recognised both are 1, whatever classes it lacks; else a class that the fold lacks counts 0.
    """
    best = []
    for fold in folds:
        by_epoch = []
        for predicted in fold.predicted:
            perfect = bool((predicted == fold.true).all())
            by_epoch.append(Unweighted(1.0, 1.0) if perfect else unweighted(confusion(fold.true, predicted, classes)))
        best.append(max(by_epoch))
    return Unweighted(*(float(mean) for mean in np.mean(best, axis=0)))
