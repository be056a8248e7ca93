"""A stream as pairs of pictures: what falls into which window, however the stream is cut into portions."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcoe_model.data.events import (
    EVENT,
    MOST_STILL,
    OPENING_US,
    PATIENCE_US,
    PERIOD_US,
    Frame,
    Pair,
    Pairing,
    balance,
    event_pictures,
)
from mcoe_model.data.geometry import SENSOR, Geometry

GEOMETRY = Geometry(43, 10, 90)


def events(*listed: tuple[int, int, int, int]) -> NDArray[np.void]:
    """Events (time, x, y, polarity); x and y from the square's corner."""
    return np.array([(t, 43 + x, 10 + y, p) for t, x, y, p in listed], EVENT)


def frame(end_us: int, grey: int = 0) -> Frame:
    return Frame(end_us - 5_000, 5_000, np.full(SENSOR[::-1], grey, np.uint8))


def test_on_and_off_events_are_balanced_in_their_cell_and_others_do_not_count() -> None:
    here = events((1, 3, 2, 1), (2, 3, 2, 1), (3, 3, 2, 0), (4, 7, 7, 0), (5, 8, 8, 1), (6, 8, 8, 0), (7, 200, 3, 1))
    found = balance(here, GEOMETRY)
    assert (found[2, 3], found[7, 7], found[8, 8]) == (1, -1, 0)
    assert np.abs(found).sum() == 2
    picture = event_pictures(found)
    assert (picture[2, 3], picture[7, 7], picture[8, 8]) == (255, 0, 128)


def test_a_window_reaches_from_the_end_of_one_exposure_to_the_end_of_the_next() -> None:
    pairing = Pairing(GEOMETRY)
    assert pairing.add_frame(frame(10_000, 1)) == []
    here = events((10_000, 0, 0, 1), (10_001, 1, 0, 1), (43_000, 2, 0, 1), (43_001, 3, 0, 1))
    assert pairing.add_events(here) == []
    (pair,) = pairing.add_frame(frame(43_000, 7))
    assert (pair.number, pair.end_us, pair.fresh) == (0, 43_000, True)
    assert pair.frame.tolist() == [[7] * 90] * 90
    assert np.flatnonzero(pair.event == 255).tolist() == [1, 2]


def test_a_window_waits_until_all_its_events_are_there() -> None:
    pairing = Pairing(GEOMETRY)
    pairing.add_frame(frame(10_000))
    assert pairing.add_frame(frame(43_000)) == []
    assert pairing.add_events(events((20_000, 1, 0, 1), (43_000, 2, 0, 1))) == []
    (pair,) = pairing.add_events(events((43_000, 3, 0, 1), (43_002, 4, 0, 1)))
    assert np.flatnonzero(pair.event == 255).tolist() == [1, 2, 3]


def test_a_still_eye_gives_pictures_too() -> None:
    pairing = Pairing(GEOMETRY)
    pairing.add_frame(frame(10_000))
    pairing.add_frame(frame(43_000))
    (pair,) = pairing.reach(43_000)
    assert (pair.event == 128).all()


def test_without_frames_windows_go_on_with_the_last_one() -> None:
    pairing = Pairing(GEOMETRY)
    pairing.add_frame(frame(10_000, 9))
    assert pairing.reach(10_000 + PATIENCE_US) == []
    pairs = pairing.reach(10_001 + PATIENCE_US + PERIOD_US)
    assert [(pair.end_us - 10_000, pair.fresh) for pair in pairs] == [(PERIOD_US, False), (2 * PERIOD_US, False)]
    assert {int(pair.frame[0, 0]) for pair in pairs} == {9}


@pytest.mark.parametrize("at_once", [True, False])
def test_after_a_long_time_without_frames_the_next_one_begins_anew(at_once: bool) -> None:
    """However late the next thing is: a time that is wrong by years makes no more windows than ten seconds do."""
    pairing = Pairing(GEOMETRY)
    pairing.add_frame(frame(10_000, 1))
    found = pairing.add_frame(frame(43_000, 2))
    last = 43_000 + MOST_STILL * PERIOD_US
    for until in () if at_once else range(100_000, last + 1_000_000, 77_777):
        found += pairing.reach(until)
    years = 1 << 55
    found += pairing.add_events(events((years, 1, 1, 1)))
    assert [pair.number for pair in found] == list(range(MOST_STILL + 1)) and found[-1].end_us == last
    assert pairing.add_frame(frame(last - 5, 3)) == [] and pairing.late == 1
    assert pairing.add_frame(frame(years - 50_000, 4)) == []
    (pair,) = pairing.add_frame(frame(years - 10_000, 5))
    assert pair.number == MOST_STILL + 2 and pair.fresh, "a hole: it does not continue what came before"


def test_a_frame_that_comes_after_its_window_was_closed_is_counted_and_left_out() -> None:
    pairing = Pairing(GEOMETRY)
    pairing.add_frame(frame(10_000, 1))
    pairing.reach(70_000)
    assert pairing.add_frame(frame(40_000, 5)) == []
    assert pairing.late == 1
    (pair,) = pairing.reach(10_000 + PERIOD_US + PATIENCE_US + 1)
    assert int(pair.frame[0, 0]) == 1


@pytest.mark.parametrize("gap", [PATIENCE_US - 1, PATIENCE_US + 1, 4 * PATIENCE_US])
def test_numbers_and_times_grow_without_a_hole(gap: int) -> None:
    pairing = Pairing(GEOMETRY)
    ends = [10_000, 10_000 + gap, 10_000 + 2 * gap]
    pairs = [pair for end in ends for pair in pairing.add_frame(frame(end))] + pairing.reach(ends[-1])
    assert [pair.number for pair in pairs] == list(range(len(pairs)))
    steps = np.diff([10_000, *(pair.end_us for pair in pairs)])
    assert (steps > 0).all() and (steps <= PATIENCE_US).all()
    assert pairs[-1].end_us == ends[-1] and pairs[-1].fresh


def same(one: Pair, other: Pair) -> bool:
    plain = (one.number, one.end_us, one.fresh) == (other.number, other.end_us, other.fresh)
    return plain and np.array_equal(one.frame, other.frame) and np.array_equal(one.event, other.event)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 400_000), max_size=12), st.integers(0, 2**32 - 1))
def test_the_same_stream_gives_the_same_pictures_in_whatever_portions_it_comes(cuts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 400_000, 3_000))
    stream = np.zeros(3_000, EVENT)
    stream["timestamp"] = times
    stream["x"], stream["y"] = random.integers(43, 133, 3_000), random.integers(10, 100, 3_000)
    stream["polarity"] = random.integers(0, 2, 3_000)
    frames = [frame(end, int(end % 251)) for end in range(20_000, 390_000, 31_000) if end % 3]

    whole = Pairing(GEOMETRY)
    expected = [pair for each in frames for pair in whole.add_frame(each)]
    expected += whole.add_events(stream) + whole.reach(400_000)

    parts, found, begin = Pairing(GEOMETRY), [], 0
    waiting = list(frames)
    for cut in [*sorted(cuts), 400_001]:
        while waiting and waiting[0].start_us <= cut:  # a camera delivers a frame soon after its exposure
            found += parts.add_frame(waiting.pop(0))
        end = int(np.searchsorted(times, cut))
        found += parts.add_events(stream[begin:end])
        begin = end
    found += parts.reach(400_000)
    assert parts.late == 0
    assert len(found) == len(expected)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_what_waits_for_a_first_frame_is_bounded_and_changes_no_picture() -> None:
    def portion(number: int) -> NDArray[np.void]:
        return events(*((t, t % 90, 0, t % 2) for t in range(10_000 * number, 10_000 * (number + 1), 500)))

    late, early, kept = Pairing(GEOMETRY), Pairing(GEOMETRY), []
    early.add_frame(frame(2_950_000))
    for number in range(300):
        here = portion(number)
        kept.append(weakref.ref(here))
        assert late.add_events(here) == []
        early.add_events(here.copy())
    del here
    assert sum(one() is not None for one in kept) <= 2 + OPENING_US // 10_000

    found, expected = late.add_frame(frame(2_950_000)), []
    for pairing, pairs in ((late, found), (early, expected)):
        pairs += pairing.add_frame(frame(2_990_000, 4))
        for number in range(300, 310):
            pairs += pairing.add_events(portion(number))
    assert len(found) == len(expected) >= 3
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_events_that_come_long_after_their_time_was_over_open_no_window_and_do_no_harm() -> None:
    """Of a machine that has too much to do, say; before the first frame they are too old for any window."""
    pairing = Pairing(GEOMETRY)
    assert pairing.reach(10 * OPENING_US) == []
    assert pairing.add_events(events((OPENING_US, 0, 0, 1))) == []
    assert pairing.add_frame(frame(10 * OPENING_US)) == []
    assert pairing.add_events(events((10 * OPENING_US + 1, 0, 0, 1))) == []
