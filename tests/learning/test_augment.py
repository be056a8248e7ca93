"""Light augmentation: shapes, bounds, and that all pictures of a window move alike."""

import numpy as np

from mcoe_model.learning.augment import BACKGROUND, SHIFT, augment
from mcoe_model.streams import stream


def pictures(value=100):
    return np.full((6, 4, 50, 50), value, np.uint8)


def test_the_same_stream_augments_alike_and_the_input_stays_as_it_is():
    given = pictures()
    first, second = augment(given, 2, stream(1)), augment(given, 2, stream(1))
    np.testing.assert_array_equal(first, second)
    assert (given == 100).all()
    assert first.shape == given.shape and first.dtype == np.uint8


def test_frames_change_in_brightness_and_events_are_lost_to_the_background():
    done = augment(pictures(), 2, stream(2))
    frames, events = done[:, :2], done[:, 2:]
    assert len(np.unique(frames)) > 1 and frames.min() >= 69 and frames.max() <= 141
    assert set(np.unique(events)) <= {100, BACKGROUND} and (events == BACKGROUND).any()


def test_all_pictures_of_a_window_shift_by_the_same_small_amount():
    given = np.zeros((20, 4, 50, 50), np.uint8)
    given[:, :, 25, 25] = 200
    done = augment(given, 2, stream(3))
    for window in done:
        first = np.argwhere(window[0] > 100)
        np.testing.assert_array_equal(first, np.argwhere(window[1] > 100))
        assert np.abs(first - 25).max() <= SHIFT * 50
