"""What is said of the camera's view while it is fitted: each bound from both sides, and several faults at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from client.page.fit_checks import fit_checks
from mcoe_model.data.geometry import Geometry

GEOMETRY = Geometry()
INSIDE = GEOMETRY.cells >= 0
Picture = NDArray[np.uint8]


def frame(grey: int = 100, white: float = 0.0) -> Picture:
    """Grey inside of the square, with this share of it white; outside it is the other way round."""
    made = np.full(INSIDE.shape, 255 - grey, np.uint8)
    inside = np.full(int(INSIDE.sum()), grey, np.uint8)
    inside[: round(white * len(inside))] = 250
    made[INSIDE] = inside
    return made


def moved(inside: int, outside: int = 0) -> Picture:
    """So many pixels with events inside of the square, and outside of it."""
    made = np.full(INSIDE.shape, 128, np.uint8)
    for where, count in ((INSIDE, inside), (~INSIDE, outside)):
        rows, columns = np.nonzero(where)
        made[rows[:count], columns[:count]] = np.resize([0, 255], count)
    return made


@pytest.mark.parametrize(
    ("grey", "white", "events", "said"),
    [
        (100, 0.0, (20, 0), ()),
        (40, 0.0, (20, 0), ()),
        (39, 0.0, (20, 0), ("too-dark",)),
        (100, 0.24, (20, 0), ()),
        (100, 0.26, (20, 0), ("too-bright",)),
        (249, 0.0, (20, 0), ()),
        (100, 0.0, (19, 0), ("no-events",)),
        (100, 0.0, (30, 30), ()),
        (100, 0.0, (29, 31), ("eye-outside",)),
        (39, 0.0, (0, 0), ("no-events", "too-dark")),
        (39, 0.0, (0, 50), ("too-dark", "eye-outside")),
    ],
)
def test_what_is_wrong_with_the_view(grey: int, white: float, events: tuple[int, int], said: tuple[str, ...]) -> None:
    assert fit_checks(frame(grey, white), moved(*events), GEOMETRY) == said
