"""UF1 and UAR against numbers worked out by hand."""

import numpy as np
import pytest

from mcoe_model.learning.megc import Fold, best_epoch_mean, pooled, unweighted


def fold(true, *by_epoch):
    return Fold(np.array(true), np.array(by_epoch))


#: Three subjects, two epochs: the second subject shows no surprise (2), the third nothing but one negative (0).
FOLDS = (
    fold([0, 0, 1, 2], [0, 1, 1, 2], [0, 0, 1, 1]),
    fold([0, 1], [1, 1], [1, 0]),
    fold([0], [0], [2]),
)


def test_counts_are_pooled_over_folds_before_any_mean():
    counts = pooled(FOLDS, 3)  # of the last epoch
    assert counts.tolist() == [[2, 1, 1], [1, 1, 0], [0, 1, 0]]
    # Negative: TP 2, FP 1, FN 2: F1 4/7, recall 2/4. Positive: TP 1, FP 2, FN 1: F1 2/5, recall 1/2. Surprise: TP 0.
    assert unweighted(counts) == pytest.approx(((4 / 7 + 2 / 5 + 0) / 3, (1 / 2 + 1 / 2 + 0) / 3))


def test_the_optimistic_mean_chooses_each_folds_epoch_on_what_it_scores():
    # Fold 1: epoch 1 has F1 2/3, 2/3, 1 (UF1 7/9, UAR 5/6); epoch 2 has 1, 2/3, 0. Fold 2: epoch 1 has F1 0, 2/3 and
    # recalls 0, 1; surprise is absent and counts 0: 2/9 and 1/3. Fold 3: all of it is recognised in epoch 1, hence 1.
    assert best_epoch_mean(FOLDS, 3) == pytest.approx(((7 / 9 + 2 / 9 + 1) / 3, (5 / 6 + 1 / 3 + 1) / 3))
    honest = unweighted(pooled(FOLDS, 3))
    assert best_epoch_mean(FOLDS, 3).uf1 > honest.uf1 and best_epoch_mean(FOLDS, 3).uar > honest.uar


def test_a_class_that_nobody_shows_counts_nothing():
    counts = pooled([fold([0, 0, 1], [0, 0, 1])], 3)
    assert unweighted(counts) == pytest.approx((2 / 3, 2 / 3))
