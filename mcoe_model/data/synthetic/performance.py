"""One take, before anything is drawn: action units, blinks, gaze, pupil and the slipping headset over time.

Source: blink phases (closing 70-110 ms, opening 120-220 ms) and saccade durations (about 40 ms) as usually reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.synthetic.expression import ACTION_UNITS, TEMPLATES, contractions, smooth
from mcoe_model.data.synthetic.face import Face

#: Pictures per second, and instants drawn per picture (the event sensor sees all of them).
PICTURES_HZ = 30.0
INSTANTS = 3


@dataclass(frozen=True)
class Mount:
    """How a session's headset sits, relative to the wearer's usual seat."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    slip: float = 1.0  # factor on the wearer's own looseness


@dataclass(frozen=True, eq=False)
class Performance:
    """T instants of one take; every array but ``units`` is (T,) float32."""

    units: dict[str, NDArray[np.float32]]  # contraction of each action unit
    closure: NDArray[np.float32]  # 0 open, 1 closed
    gaze_x: NDArray[np.float32]
    gaze_y: NDArray[np.float32]
    pupil: NDArray[np.float32]  # share of the iris radius
    shift_x: NDArray[np.float32]  # of the picture, half picture widths
    shift_y: NDArray[np.float32]
    roll: NDArray[np.float32]  # radians
    scale: NDArray[np.float32]

    @property
    def instants(self) -> int:
        return self.closure.size


def perform(
    g: np.random.Generator, face: Face, emotion: str, pictures: int, difficulty: float, mount: Mount | None = None
) -> Performance:
    """Play ``emotion`` for ``pictures`` pictures; T = pictures x INSTANTS."""
    mount = mount or Mount()
    t = np.arange(pictures * INSTANTS) / (PICTURES_HZ * INSTANTS)
    units, presence = contractions(g, face, emotion, t, difficulty)
    au = dict(zip(ACTION_UNITS, units, strict=True))
    template = TEMPLATES[emotion]
    blink = _blinks(g, t, face.blink_hz * (1.4 if emotion in ("neutral", "sadness") else 1.0))
    droop = np.clip(0.70 * au["AU43"], 0.0, 0.9)
    gaze_x, gaze_y = _gaze(g, t)
    x, y, roll, scale = face.mount
    loose = face.slip * mount.slip
    arrays = {
        "closure": 1.0 - (1.0 - droop) * (1.0 - blink),
        "gaze_x": gaze_x,
        "gaze_y": gaze_y + template.gaze_down * presence,
        "pupil": face.pupil * (1.0 + template.pupil * presence) + 0.01 * np.sin(2 * np.pi * 0.7 * t),
        "shift_x": x + mount.shift_x + _slip(g, t, 0.026 * loose),
        # the cheek pushes the headset up
        "shift_y": y + mount.shift_y + _slip(g, t, 0.026 * loose) - 0.015 * (au["AU6"] + au["AU9"]),
        "roll": roll + mount.roll + _slip(g, t, 0.010 * loose),
        "scale": scale * mount.scale + _slip(g, t, 0.007 * loose),
    }
    return Performance(
        units={name: values.astype(np.float32) for name, values in au.items()},
        **{name: values.astype(np.float32) for name, values in arrays.items()},
    )


def _blinks(g: np.random.Generator, t: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """Lid closure by blinking (T,)."""
    closure = np.zeros(t.size)
    for _ in range(g.poisson(rate_hz * t[-1])):
        start, closing, opening = g.uniform(0, t[-1]), g.uniform(0.07, 0.11), g.uniform(0.12, 0.22)
        blink = smooth((t - start) / closing) * (1.0 - smooth((t - start - closing - 0.02) / opening))
        closure = np.maximum(closure, blink * g.uniform(0.85, 1.0))
    return closure


def _gaze(g: np.random.Generator, t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fixations joined by saccades: horizontal and vertical gaze (T,), 1 = the edge of comfortable movement."""
    x, y = np.full(t.size, g.normal(0, 0.25)), np.full(t.size, g.normal(0, 0.15))
    moment = g.exponential(0.9)
    while moment < t[-1]:
        moved = smooth((t - moment) / 0.04)
        x, y = x + (g.normal(0, 0.35) - x) * moved, y + (g.normal(0, 0.20) - y) * moved
        moment += g.exponential(0.9)
    return x, y


def _slip(g: np.random.Generator, t: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """A random walk from 0 that ends ``spread`` away on average, smoothed over a sixth of a second (T,)."""
    walk = np.cumsum(g.normal(size=t.size)) * spread / np.sqrt(t.size)
    half = 5 * INSTANTS // 2
    return np.convolve(np.pad(walk, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), mode="valid")
