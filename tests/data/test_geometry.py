"""The sensor's square becomes the eye's picture: frames by area, events by cell, both in the same place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.data.geometry import PICTURE_SIZE, SENSOR, Geometry
from mcoe_model.errors import SettingsError

WIDTH, HEIGHT = SENSOR
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def test_a_square_of_the_pictures_size_is_copied() -> None:
    geometry = Geometry(100, 50, PICTURE_SIZE)
    np.testing.assert_array_equal(geometry.picture(NOISE), NOISE[50:140, 100:190])


def test_a_larger_square_is_averaged_by_area() -> None:
    geometry = Geometry(10, 20, 2 * PICTURE_SIZE)
    blocks = NOISE[20:200, 10:190].reshape(90, 2, 90, 2).astype(int)
    np.testing.assert_array_equal(geometry.picture(NOISE), (blocks.sum((1, 3)) + 2) // 4)


def test_a_left_eye_is_mirrored() -> None:
    right, left = (Geometry(100, 50, 180, 0.0, eye) for eye in ("right", "left"))
    np.testing.assert_array_equal(left.picture(NOISE), right.picture(NOISE)[:, ::-1])
    cells = right.cells[60, 110]
    assert left.cells[60, 110] == cells // 90 * 90 + 89 - cells % 90


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2), (-180, 2)])
def test_a_turned_square_comes_out_upright(rotation: float, turns: int) -> None:
    upright, turned = Geometry(100, 50, PICTURE_SIZE), Geometry(100, 50, PICTURE_SIZE, rotation)
    np.testing.assert_array_equal(turned.picture(NOISE), np.rot90(upright.picture(NOISE), turns))


@settings(max_examples=25)
@given(st.integers(90, 260), st.floats(-180, 180), st.sampled_from(["right", "left"]))
def test_a_bright_spot_and_its_events_lie_in_the_same_place(side: int, rotation: float, eye: str) -> None:
    geometry = Geometry((WIDTH - side) // 2, (HEIGHT - side) // 2, side, rotation, eye)  # type: ignore[arg-type]
    x, y = WIDTH // 2 + side // 5, HEIGHT // 2 - side // 7
    frame = np.zeros((HEIGHT, WIDTH), np.uint8)
    frame[y - 3 : y + 4, x - 3 : x + 4] = 255
    v, u = np.unravel_index(int(geometry.picture(frame).argmax()), (PICTURE_SIZE, PICTURE_SIZE))
    cell = int(geometry.cells[y, x])
    assert cell >= 0
    reach = 4 * PICTURE_SIZE / side + 1
    assert abs(cell // PICTURE_SIZE - v) <= reach and abs(cell % PICTURE_SIZE - u) <= reach


def test_every_cell_has_its_share_of_the_square_and_nothing_outside_has_one() -> None:
    geometry = Geometry(43, 10, 240)
    counted = np.bincount(geometry.cells[geometry.cells >= 0], minlength=PICTURE_SIZE**2)
    assert counted.sum() == 240**2
    assert set(counted) <= {4, 6, 9}  # 2 or 3 pixels along each side
    outside = geometry.cells.copy()
    outside[10:250, 43:283] = -1
    assert (outside == -1).all()


def test_every_fault_of_a_geometry_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Geometry(300, 0, 200, 400.0, "third", 99)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 4
    with pytest.raises(SettingsError, match="side must be between 90 and 260"):
        Geometry(0, 0, 50)
