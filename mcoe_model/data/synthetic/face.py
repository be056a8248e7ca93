"""One person's eye region: the shape, tone and habits that stay the same in all of that person's sequences.

Lengths are in half picture widths, tones are reflectances in [0, 1]. Ranges were chosen by looking at contact sheets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.synthetic.expression import ACTION_UNITS, HABITS
from mcoe_model.streams import stream

#: Share of people who wear glasses.
GLASSES = 0.08


@dataclass(frozen=True, eq=False)
class Face:
    """A person. Angles in radians; x points to the nose, y down; the mount is how the headset sits on that head."""

    skin: float
    socket: float  # depth of the shadow between lid and brow
    bag: float  # depth of the furrow under the eye
    nose: float  # how fast the nose's flank turns away from the light
    wrinkles: float  # how strongly action units fold the skin
    texture_waves: NDArray[np.float32]  # (5, 3): wave numbers in x and y, phase
    texture: float  # contrast of pores and freckles
    brow_height: float
    brow_thickness: float
    brow_density: float
    brow_arch: float
    brow_slope: float
    brow_length: float
    hair_pitch: float
    hair_contrast: float
    half_width: float  # of the eye opening
    upper_lid: float
    lower_lid: float
    canthal_tilt: float
    lid_roundness: float
    lid_peak: float
    crease: float
    crease_height: float
    lashes: float
    iris_radius: float
    iris_tone: float
    pupil: float  # share of the iris radius
    sclera_tone: float
    glint: tuple[float, float]
    glasses: bool
    mount: tuple[float, float, float, float]  # shift x, shift y, roll, scale
    slip: float  # how loosely the headset sits
    blink_hz: float
    gains: NDArray[np.float64]  # (8,): how strongly this person moves each action unit
    resting: NDArray[np.float64]  # (8,): how far each action unit is contracted at rest
    expressiveness: float


def draw_face(seed: int, subject: int, difficulty: float) -> Face:
    """Person ``subject`` of the population ``seed``; ``difficulty`` scales that person's habits only."""
    g = stream(seed, "face", subject)
    u, n = g.uniform, g.normal
    wave_numbers = np.array([4.0, 7.0, 14.0, 23.0, 34.0]) * u(0.8, 1.2, 5)
    angles = u(0, np.pi) + np.array([0.0, 1.7, 0.6, 2.2, 1.2])
    waves = np.stack([wave_numbers * np.cos(angles), wave_numbers * np.sin(angles), u(0, 2 * np.pi, 5)], axis=1)
    face = {
        "skin": u(0.34, 0.66), "socket": u(0.16, 0.46), "bag": u(0.0, 0.22), "nose": u(0.10, 0.42),
        "wrinkles": u(0.65, 1.25), "texture": u(0.012, 0.030),
        "brow_height": u(-0.60, -0.49), "brow_thickness": u(0.060, 0.120), "brow_density": u(0.52, 0.86),
        "brow_arch": u(0.02, 0.12), "brow_slope": n(0, 0.035), "brow_length": u(0.88, 1.06),
        "hair_pitch": u(24, 40), "hair_contrast": u(0.08, 0.22),
        "half_width": u(0.52, 0.63), "upper_lid": u(0.165, 0.215), "lower_lid": u(0.10, 0.15),
        "canthal_tilt": u(-0.02, 0.07), "lid_roundness": u(1.7, 2.6), "lid_peak": u(-0.12, 0.22),
        "crease": u(0, 1) ** 0.7, "crease_height": u(0.05, 0.105), "lashes": u(0.45, 0.85),
        "iris_radius": u(0.20, 0.25), "iris_tone": u(0.06, 0.22), "pupil": u(0.34, 0.50), "sclera_tone": u(0.64, 0.84),
        "slip": u(0.4, 1.5), "blink_hz": u(0.12, 0.45),
    }  # fmt: skip
    glint = (u(-0.10, 0.04), u(-0.12, -0.04))
    mount = (n(0, 0.045), n(0.12, 0.040), n(0, 0.04), u(0.93, 1.09))
    glasses = bool(u() < GLASSES)
    habits = stream(seed, "habits", subject)
    units = len(ACTION_UNITS)
    gains = np.exp(difficulty * HABITS.gain_spread * habits.normal(size=units))
    gains *= np.where(habits.uniform(size=units) < difficulty * HABITS.missing, 0.15, 1.0)
    resting = difficulty * HABITS.resting * np.abs(habits.normal(size=units)) * HABITS.resting_units
    expressiveness = 1.0 - difficulty * habits.uniform(0, HABITS.reserve)
    return Face(
        **{key: float(value) for key, value in face.items()}, texture_waves=waves.astype(np.float32), glint=glint,
        mount=mount, glasses=glasses, gains=gains, resting=resting, expressiveness=float(expressiveness),
    )  # fmt: skip
