"""Whether the camera sees the eye well, from one picture of the whole sensor. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.page.wearable_protocol import Check
from mcoe_model.data.geometry import Geometry

#: Mean grey of the square, of 255, below which too little of the eye is seen.
_DARK = 40
#: Share of the square's pixels that may be white.
_WHITE, _WHITE_SHARE = 250, 0.25
#: Pixels with events below which nothing moves, and the share of them that has to lie in the square.
_FEW_EVENTS, _INSIDE_SHARE = 20, 0.5


def fit_checks(frame: NDArray[np.uint8], event: NDArray[np.uint8], geometry: Geometry) -> tuple[Check, ...]:
    """What is wrong with a frame and an event picture (H, W) under this geometry."""
    inside = geometry.cells >= 0
    found: list[Check] = []
    moved = event != 128
    if np.count_nonzero(moved) < _FEW_EVENTS:
        found.append("no-events")
    seen = frame[inside]
    if float(seen.mean()) < _DARK:
        found.append("too-dark")
    elif float((seen >= _WHITE).mean()) > _WHITE_SHARE:
        found.append("too-bright")
    if "no-events" not in found and np.count_nonzero(moved & inside) < _INSIDE_SHARE * np.count_nonzero(moved):
        found.append("eye-outside")
    return tuple(found)
