"""Where lids and brow lie at each instant: the curves that every layer of the drawn eye hangs on.

Glossary
    T        instants of one chunk
    H, W     rows and columns of the picture
    x, y     position on the face: picture half-width = 1, x towards the nose, y down, origin at the eye's centre
    across   x in units of the eye opening's half-width: -1 outer corner, +1 inner corner
    medial, lateral   weights that rise towards the nose and towards the temple
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.synthetic.face import Face
from mcoe_model.data.synthetic.performance import Performance

Array = NDArray[np.float32]
F = np.float32


@dataclass(frozen=True, eq=False)
class Curves:
    """One chunk of instants. Shapes: (T, 1, 1) per instant, (T, 1, W) per column, (T, H, W) per pixel."""

    au: dict[str, Array]  # (T, 1, 1)
    closure: Array  # (T, 1, 1)
    gaze_x: Array  # (T, 1, 1)
    gaze_y: Array  # (T, 1, 1)
    pupil: Array  # (T, 1, 1)
    x: Array  # (T, 1, W)
    y: Array  # (T, H, W)
    pixel: float  # side of a pixel in face units
    across: Array  # (T, 1, W)
    medial: Array  # (T, 1, W)
    lateral: Array  # (T, 1, W)
    corner_line: Array  # (T, 1, W) y of the line through both corners
    open_lid: Array  # (T, 1, W) y of the upper lid were it not closing: the crease hangs on it
    upper: Array  # (T, 1, W) y of the upper lid's edge
    lower: Array  # (T, 1, W) y of the lower lid's edge
    brow: Array  # (T, 1, W) y of the brow's centre
    brow_shift: Array  # (T, 1, W) how far action units moved it
    brow_half: Array  # (T, 1, W) half the brow's thickness
    along_brow: Array  # (T, 1, W) 0 at the tail, 1 at the head
    from_brow: Array  # (T, H, W) y - brow


def curves(face: Face, play: Performance, instants: slice, size: int) -> Curves:
    """The curves of ``play`` at ``instants`` for a picture of ``size`` x ``size`` pixels."""
    grid = np.linspace(-1 + 1 / size, 1 - 1 / size, size, dtype=F)

    def at(values: Array) -> Array:
        return values[instants, None, None]

    au = {name: at(values) for name, values in play.units.items()}
    closure, scale = at(play.closure), at(play.scale)
    au1, au2, au4, au5, au6, au7, au9, au43 = (au[name] for name in au)
    x = (grid[None, None, :] - at(play.shift_x)) / scale  # (T, 1, W)
    y = (grid[None, :, None] - at(play.shift_y)) / scale - at(play.roll) * x  # (T, H, W)
    across = x / F(face.half_width)
    medial, lateral = np.clip(0.5 + 0.7 * x, 0, 1), np.clip(0.5 - 0.7 * x, 0, 1)

    # Lids: a rounded arch above and a flatter one below the line through the corners.
    corner_line = F(face.canthal_tilt * 0.6) * across
    skewed = np.clip(across - F(face.lid_peak) * (1 - across * across), -1, 1)
    arch = np.clip(1 - np.abs(skewed) ** F(face.lid_roundness), 0, 1)
    height = F(face.upper_lid) * (1 + 0.62 * au5 - 0.20 * au7 - 0.10 * au6 - 0.16 * au9 - 0.16 * au4 * medial)
    depth = F(face.lower_lid) * np.clip(1 + 0.14 * au5 - 0.55 * au7 - 0.58 * au6 - 0.35 * au9, -0.15, None)
    lower = corner_line + depth * np.clip(1 - across * across, 0, 1) ** F(0.8)
    open_lid = corner_line - height * arch * (1 - 0.30 * au43 * lateral)
    upper = open_lid + np.clip(lower - F(0.008) - open_lid, 0, None) * closure

    # Brow: an arch whose head (nose side) and tail move apart under different units.
    along = np.clip((x / F(face.brow_length) + 0.72) / 1.35, 0, 1)
    rest = F(face.brow_height) + F(face.brow_slope) * x + 0.20 * np.clip(0.25 - along, 0, 1)
    rest = rest - F(face.brow_arch) * np.sin(np.pi * np.clip(1.15 * (1 - along), 0, 1))
    shift = 0.21 * au4 * (0.30 + 0.85 * medial) + 0.12 * au9 * (0.4 + 0.6 * medial) - 0.26 * au1 * medial ** F(1.4)
    shift = shift - 0.26 * au2 * lateral ** F(0.8) + 0.035 * au6 - 0.03 * au5 + 0.025 * au7 + 0.02 * closure
    brow = rest + shift
    half = F(face.brow_thickness) * (0.30 + 0.70 * np.clip(2.2 * along, 0, 1))
    half = half * (1 - 0.35 * np.clip((along - 0.85) * 5, 0, 1)) * (1 - 0.10 * au4)
    return Curves(
        au=au, closure=closure, gaze_x=at(play.gaze_x), gaze_y=at(play.gaze_y), pupil=at(play.pupil), x=x, y=y,
        pixel=2 / size / float(scale.mean()), across=across, medial=medial, lateral=lateral, corner_line=corner_line,
        open_lid=open_lid, upper=upper, lower=lower, brow=brow, brow_shift=shift, brow_half=half, along_brow=along,
        from_brow=y - brow,
    )  # fmt: skip


def ridge(distance: Array, width: float) -> Array:
    """A soft line: exp(-(distance / width)^2), written over ``distance``."""
    distance *= F(1 / width)
    np.multiply(distance, distance, out=distance)
    np.negative(distance, out=distance)
    return np.exp(distance, out=distance)


def ramp(distance: Array, width: float) -> Array:
    """A soft edge: 0 below -width/2, 1 above +width/2, written over ``distance``."""
    distance *= F(1 / width)
    distance += F(0.5)
    return np.clip(distance, 0, 1, out=distance)
