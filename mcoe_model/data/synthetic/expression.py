"""How an emotion moves the eye region: facial action units over time.

Source: action units of each emotion after EMFACS (Friesen and Ekman, 1983), upper face only; onset times after the
ranges reported for posed expressions (surprise fastest, sadness slowest). Clips are trimmed to the expression, as SEE's
are: in most of them it has begun before the first picture and is held to the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mcoe_model.names import EMOTIONS

if TYPE_CHECKING:
    from mcoe_model.data.synthetic.face import Face

#: AU1 inner brow raiser, AU2 outer brow raiser, AU4 brow lowerer, AU5 upper lid raiser, AU6 cheek raiser,
#: AU7 lid tightener, AU9 nose wrinkler, AU43 lid droop.
ACTION_UNITS: tuple[str, ...] = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU43")


@dataclass(frozen=True)
class Template:
    """An emotion by the book: full contraction of each unit, seconds from rest to apex, gaze and pupil at the apex."""

    units: tuple[float, ...]  # in the order of ACTION_UNITS
    onset_s: tuple[float, float]
    gaze_down: float = 0.0
    pupil: float = 0.0  # relative change of its radius


#                          AU1   AU2   AU4   AU5   AU6   AU7   AU9   AU43
TEMPLATES: dict[str, Template] = {
    "angry": Template((0.00, 0.00, 1.00, 0.25, 0.00, 0.75, 0.10, 0.00), (0.25, 0.55), pupil=-0.05),
    "disgust": Template((0.00, 0.00, 0.50, 0.00, 0.45, 0.60, 1.00, 0.30), (0.25, 0.50), gaze_down=0.1, pupil=-0.05),
    "fear": Template((0.90, 0.40, 0.60, 1.00, 0.00, 0.20, 0.00, 0.00), (0.15, 0.35), pupil=0.22),
    "happiness": Template((0.00, 0.10, 0.00, 0.00, 1.00, 0.40, 0.00, 0.05), (0.35, 0.70), pupil=0.05),
    "neutral": Template((0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (0.30, 0.60)),
    "sadness": Template((0.90, 0.00, 0.45, 0.00, 0.00, 0.10, 0.00, 0.50), (0.50, 1.00), gaze_down=0.6),
    "surprise": Template((0.90, 1.00, 0.00, 0.60, 0.00, 0.00, 0.00, 0.00), (0.10, 0.25), pupil=0.12),
}


@dataclass(frozen=True)
class Habits:
    """What makes recognition hard at difficulty 1; each amount grows in proportion to the difficulty."""

    gain_spread: float = 0.125  # log-normal spread of a person's action units
    missing: float = 0.03  # chance that a person hardly moves a unit at all
    resting: float = 0.10  # contraction at rest
    resting_units: NDArray[np.float64] = field(
        default_factory=lambda: np.array([0.7, 0.7, 1.0, 0.6, 0.6, 0.9, 0.5, 0.6])
    )
    reserve: float = 0.15  # the most reserved person shows so much less
    faint: float = 0.125  # the faintest take of one person shows so much less
    halfhearted: float = 0.08  # chance that a take is hardly performed
    halfhearted_share: tuple[float, float] = (0.15, 0.50)
    blend: float = 0.06  # chance of a second emotion mixed in
    blend_share: tuple[float, float] = (0.15, 0.45)
    unrest: float = 0.02  # contraction that belongs to no emotion
    take_spread: float = 0.06  # log-normal spread of an action unit from take to take


HABITS = Habits()

#: Trimming: when the expression begins, as a share of the clip, and how many clips end at the apex.
ONSET_SHARE = (-0.25, 0.06)
HELD_TO_END = 0.80


def smooth(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """A step from 0 to 1 with soft ends, over z in [0, 1]."""
    z = np.clip(z, 0.0, 1.0)
    return z * z * (3.0 - 2.0 * z)


def contractions(
    g: np.random.Generator, face: Face, emotion: str, t: NDArray[np.float64], difficulty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Action units of one take at the times ``t`` [s] (T,), from 0 to the clip's end.

    Returns (units (8, T), presence (T,)): contraction of each unit, and how far the emotion is expressed in [0, ~1].
    """
    template = TEMPLATES[emotion]
    duration = float(t[-1])
    strength = face.expressiveness * (1.0 - difficulty * HABITS.faint * g.beta(1.4, 2.6))
    chance, half = g.uniform(), g.uniform(*HABITS.halfhearted_share)  # drawn in any case: the others stay the same
    if chance < difficulty * HABITS.halfhearted:
        strength *= half
    strength = max(strength, 0.12)
    gains = face.gains * np.exp(difficulty * HABITS.take_spread * g.normal(size=8)) * strength
    target = np.array(template.units) * gains
    other, share, blended = EMOTIONS[g.integers(7)], g.uniform(*HABITS.blend_share), g.uniform()
    if blended < difficulty * HABITS.blend:
        target += np.array(TEMPLATES[other].units) * gains * share
    target += difficulty * HABITS.unrest * np.abs(g.normal(size=8)) * HABITS.resting_units

    begin = g.uniform(*ONSET_SHARE) * duration
    rise = g.uniform(*template.onset_s)
    end, fall = g.uniform(0.55, 0.90) * duration, g.uniform(0.3, 1.0)
    if g.uniform() < HELD_TO_END:
        end = duration + 1.0
    units = np.empty((8, t.size))
    for i in range(8):  # every muscle starts a little earlier or later and trembles on its own
        early = g.normal(0, 0.03)
        held = smooth((t - begin - early) / rise) * (1.0 - smooth((t - end - early) / fall))
        tremor = np.cumsum(g.normal(size=t.size))
        tremor -= tremor.mean()
        tremor /= np.abs(tremor).max() + 1e-6
        units[i] = face.resting[i] + target[i] * held * (1.0 + 0.08 * tremor) + 0.012 * tremor
    presence = strength * smooth((t - begin) / rise) * (1.0 - smooth((t - end) / fall))
    return np.clip(units, 0.0, 1.35), presence
