"""From the sensor to the picture that the networks see: one geometry for live recognition, clips and exports.

NumPy only. A square of the sensor, as the fit step chose it, is turned upright, mirrored when it shows a left eye, so
that every eye is a right one, and reduced to 90 x 90: frames by area, events into the cell that their pixel's centre
lies in.

Letters: W and H width and height of the sensor, S side of a picture; lengths in pixels, u and v from a picture's left
and top, x and y from the sensor's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import SettingsError

#: DAVIS346: W x H.
SENSOR = (346, 260)
#: S of the pictures that are kept; a network resizes them to its own.
PICTURE_SIZE = 90
#: Changes whenever the same stream would give other pictures; clips and features of different versions never meet.
GEOMETRY_VERSION = 1

#: A picture's pixel is the mean of so many places of the sensor along each side; the square is at most 2.9 times S.
_PLACES = 4

Eye = Literal["right", "left"]


@dataclass(frozen=True)
class Geometry:
    """Which part of the sensor is the eye's picture, kept with every session.

    - ``x``, ``y``: the left upper corner of the square before it is turned, and ``side``, its length.
    - ``rotation``: degrees by which the square is turned clockwise about its middle; the picture comes out upright.
    - ``eye``: the eye that the camera sees.
    """

    x: int = (SENSOR[0] - 240) // 2
    y: int = (SENSOR[1] - 240) // 2
    side: int = 240
    rotation: float = 0.0
    eye: Eye = "right"
    version: int = GEOMETRY_VERSION

    def __post_init__(self) -> None:
        width, height = SENSOR
        found = []
        if not PICTURE_SIZE <= self.side <= height:
            found.append(f"side must be between {PICTURE_SIZE} and {height} pixels, not {self.side}")
        elif not (0 <= self.x <= width - self.side and 0 <= self.y <= height - self.side):
            where = f"a square of {self.side} pixels at ({self.x}, {self.y})"
            found.append(f"{where} is not on the {width} x {height} sensor")
        if not -180 <= self.rotation <= 180:
            found.append(f"rotation must be between -180 and 180 degrees, not {self.rotation}")
        if self.eye not in ("right", "left"):
            found.append(f"eye must be right or left, not {self.eye!r}")
        if self.version != GEOMETRY_VERSION:
            found.append(f"geometry has version {self.version}; this program makes version {GEOMETRY_VERSION}")
        if found:
            raise SettingsError(found)

    def picture(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A sensor's frame (H, W) as a picture (S, S)."""
        values = frame.reshape(-1)[self._places]  # (S S, places)
        means: NDArray[np.uint32] = (values.sum(axis=1, dtype=np.uint32) + values.shape[1] // 2) // values.shape[1]
        return means.astype(np.uint8).reshape(PICTURE_SIZE, PICTURE_SIZE)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """The picture's cell that each of the sensor's pixels falls into, v S + u; -1 outside: (H, W)."""
        width, height = SENSOR
        y, x = np.mgrid[:height, :width] + 0.5
        cos, sin = self._turn
        middle_x, middle_y = self.x + self.side / 2, self.y + self.side / 2
        right, down = x - middle_x, y - middle_y
        scale = PICTURE_SIZE / self.side
        # A pixel's centre that lies on an edge between cells belongs to the right or lower one, whatever the rounding.
        u = np.floor(scale * (cos * right + sin * down) + PICTURE_SIZE / 2 + 1e-9).astype(np.int64)
        v = np.floor(scale * (cos * down - sin * right) + PICTURE_SIZE / 2 + 1e-9).astype(np.int64)
        inside = (u >= 0) & (u < PICTURE_SIZE) & (v >= 0) & (v < PICTURE_SIZE)
        cells: NDArray[np.int64] = np.where(inside, v * PICTURE_SIZE + self._mirrored(u), -1)
        return cells

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """The sensor's pixels whose mean is each pixel of the picture: (S S, places)."""
        width, height = SENSOR
        steps = (np.arange(PICTURE_SIZE * _PLACES) + 0.5) / _PLACES - PICTURE_SIZE / 2
        v, u = np.meshgrid(steps, steps, indexing="ij")
        cos, sin = self._turn
        scale = self.side / PICTURE_SIZE
        x = self.x + self.side / 2 + scale * (cos * u - sin * v)
        y = self.y + self.side / 2 + scale * (sin * u + cos * v)
        # The corners of a turned square may lie beyond the sensor; its edge stands for what is there.
        column = np.clip(np.floor(x + 1e-9), 0, width - 1).astype(np.int64)
        row = np.clip(np.floor(y + 1e-9), 0, height - 1).astype(np.int64)
        grid = (row * width + column).reshape(PICTURE_SIZE, _PLACES, PICTURE_SIZE, _PLACES).transpose(0, 2, 1, 3)
        if self.eye == "left":
            grid = grid[:, ::-1]
        return np.ascontiguousarray(grid.reshape(PICTURE_SIZE**2, _PLACES**2))

    @property
    def _turn(self) -> tuple[float, float]:
        """Cosine and sine of the rotation."""
        angle = math.radians(self.rotation)
        return math.cos(angle), math.sin(angle)

    def _mirrored(self, u: NDArray[np.int64]) -> NDArray[np.int64]:
        return PICTURE_SIZE - 1 - u if self.eye == "left" else u
