"""The measures of a stream against values worked out by hand."""

import numpy as np
import pytest

from mcoe_model.learning.forgetting import forgetting_after, removed, stream_scores, worst_tenth

#: Rows: the base, then after stages 1, 2, 3. Columns: domains 1, 2, 3.
R = np.array([[0.5, 0.4, 0.3], [0.9, 0.5, 0.2], [0.6, 0.8, 0.5], [0.7, 0.5, 0.9]])


def test_the_measures_of_a_stream_by_hand():
    scores = stream_scores(R)
    assert scores.acc == pytest.approx((0.7 + 0.5 + 0.9) / 3)
    assert scores.bwt == pytest.approx(((0.7 - 0.9) + (0.5 - 0.8)) / 2)
    assert scores.fwt == pytest.approx(((0.5 - 0.4) + (0.5 - 0.3)) / 2)
    assert scores.forgetting == pytest.approx(((0.9 - 0.7) + (0.8 - 0.5)) / 2)
    assert scores.forgetting_from_base == pytest.approx(scores.forgetting)


def test_what_the_base_knew_and_no_stage_reached_again_counts_from_the_base_only():
    """Domain 1 was known better before anything was learned, domain 2 best of all after stage 1, before its own."""
    known = np.array([[0.9, 0.4], [0.6, 0.8], [0.5, 0.7]])
    scores = stream_scores(known)
    assert scores.forgetting == pytest.approx(0.6 - 0.5)
    assert scores.forgetting_from_base == pytest.approx(0.9 - 0.5)
    assert scores.bwt == pytest.approx(-0.1)


def test_forgetting_over_time_ends_with_the_streams_own():
    assert forgetting_after(R) == pytest.approx((0.9 - 0.6, ((0.9 - 0.7) + (0.8 - 0.5)) / 2))


def test_the_maximum_begins_with_a_domains_own_stage():
    """Before stage 2 domain 2 was at 0.9; that is no knowledge that its own stage, at 0.5, could have forgotten."""
    early = np.array([[0.1, 0.1, 0.1], [0.5, 0.9, 0.1], [0.5, 0.5, 0.1], [0.5, 0.5, 0.5]])
    assert stream_scores(early).forgetting == pytest.approx(0)
    assert stream_scores(early).forgetting_from_base == pytest.approx((0 + 0.4) / 2)


def test_what_a_method_takes_away_counts_only_where_naive_training_forgets():
    assert removed(0.40, 0.10) == pytest.approx(0.75)
    assert removed(0.40, 0.50) == pytest.approx(-0.25)
    assert removed(0.099, 0.0) is None
    assert removed(0.10, 0.0) == 1


def test_the_worst_tenth_is_at_least_one_device():
    assert worst_tenth(np.array([0.5, 0.2, 0.9])) == 0.2
    assert worst_tenth(np.linspace(0, 1, 11)) == pytest.approx(0.05)


@pytest.mark.parametrize("shape", [(3, 3), (2, 1), (4, 2)])
def test_a_matrix_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError):
        stream_scores(np.zeros(shape))
