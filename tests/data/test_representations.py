"""What is shown of a window's events: known values, and SEE's pictures from the events themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT, PERIOD_US
from mcoe_model.data.representations import BINS, GAIN, MIDDLE, REPRESENTATIONS, TAU_US
from simulations.conform.properties import tried
from simulations.conform.representations import PROPERTIES

SHAPE = (3, 4)
END = 900_000
START = END - PERIOD_US


def events(*listed: tuple[int, int, int, int]) -> NDArray[np.void]:
    """Events (microseconds after START, x, y, polarity)."""
    return np.array([(START + t, x, y, p) for t, x, y, p in listed], EVENT)


def drawn(name: str, these: NDArray[np.void]) -> NDArray[np.uint8]:
    return REPRESENTATIONS[name].draw(these, START, END, SHAPE)


def blank(name: str) -> NDArray[np.uint8]:
    made = REPRESENTATIONS[name]
    return np.full((made.channels, *SHAPE), made.background, np.uint8)


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("property_of", PROPERTIES)
def test_ours_have_every_property_that_is_asked_of_yours(name: str, property_of: str) -> None:
    assert REPRESENTATIONS[name].name == name
    assert not tried(property_of, PROPERTIES[property_of], lambda: REPRESENTATIONS[name]).fault


def test_ternary_shows_which_prevail() -> None:
    wanted = blank("ternary")
    wanted[0, 2, 1], wanted[0, 0, 3] = 255, 0
    these = events((1, 1, 2, 1), (2, 1, 2, 1), (3, 1, 2, 0), (4, 3, 0, 0), (5, 2, 2, 1), (6, 2, 2, 0))
    np.testing.assert_array_equal(drawn("ternary", these), wanted)


def test_signed_counts_saturate() -> None:
    wanted = blank("signed-counts")
    wanted[0, 2, 1], wanted[0, 0, 3], wanted[0, 1, 1] = MIDDLE + 2 * GAIN, MIDDLE - GAIN, 255
    these = events((1, 1, 2, 1), (2, 1, 2, 1), (4, 3, 0, 0), *[(5, 1, 1, 1)] * 9)
    np.testing.assert_array_equal(drawn("signed-counts", these), wanted)
    assert drawn("signed-counts", events(*[(5, 1, 1, 0)] * 9))[0, 1, 1] == 0


def test_two_channels_keep_on_and_off_apart() -> None:
    wanted = blank("two-channel-counts")
    wanted[0, 2, 1], wanted[1, 2, 1], wanted[1, 0, 3] = 2 * GAIN, GAIN, 255
    these = events((1, 1, 2, 1), (2, 1, 2, 1), (3, 1, 2, 0), *[(4, 3, 0, 0)] * 20)
    np.testing.assert_array_equal(drawn("two-channel-counts", these), wanted)


def test_a_voxel_grid_shares_an_event_between_the_points_around_it() -> None:
    wanted = blank("voxel-grid")
    wanted[2, 0, 0] = MIDDLE + GAIN  # at the very end
    wanted[0, 1, 1] = wanted[1, 1, 1] = MIDDLE - GAIN // 2  # in the middle between the first two points
    wanted[1, 2, 3] = MIDDLE + GAIN  # at the second
    quarter = PERIOD_US / (BINS - 1) / 2
    these = events((round(quarter), 1, 1, 0), (round(2 * quarter), 3, 2, 1), (PERIOD_US, 0, 0, 1))
    np.testing.assert_array_equal(drawn("voxel-grid", these), wanted)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, PERIOD_US), st.booleans()), max_size=7))
def test_the_points_of_a_voxel_grid_sum_up_to_the_signed_count(listed: list[tuple[int, bool]]) -> None:
    these = events(*[(t, 2, 1, int(on)) for t, on in sorted(listed)])
    points = drawn("voxel-grid", these)[:, 1, 2].astype(int) - MIDDLE
    balance = sum(1 if on else -1 for _, on in listed)
    assert abs(points.sum() - GAIN * balance) <= BINS / 2, "apart from rounding to grey levels"


def test_a_time_surface_shows_how_long_ago_the_newest_event_was() -> None:
    wanted = blank("time-surface")
    wanted[0, 1, 2], wanted[1, 1, 2] = 255, round(255 * math.exp(-(PERIOD_US - 20_000) / TAU_US))
    these = events((10_000, 2, 1, 0), (11_000, 2, 1, 1), (20_000, 2, 1, 0), (PERIOD_US, 2, 1, 1))
    np.testing.assert_array_equal(drawn("time-surface", these), wanted)
