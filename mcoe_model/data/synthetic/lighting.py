"""The four lightings: where the light falls and how much of it, in units of the intensity sensor's full scale.

Source: the lighting conditions that SEE names. The amounts were chosen so that a data set's mean grey equals SEE's
(0.226) while overexposed skin saturates, low light is nearly black and HDR is half lit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcoe_model.streams import stream


@dataclass(frozen=True)
class Light:
    """One lighting of one sitting."""

    name: str
    exposure: float  # full scales of the intensity sensor that a white surface gets
    direction: float  # radians
    gradient: float  # relative fall-off from the middle to the dark side
    glare: float  # light that every pixel gets besides, as a share of a white surface's
    edge: float  # HDR only: where the shadow begins, in half picture widths
    hardness: float  # HDR only: how sharp its edge is
    floor: float  # HDR only: light in the shadow


#: For each lighting: what skin in full light gives [full scales], fall-off from the middle to the dark side, glare.
RANGES = {
    "normal": ((0.125, 0.235), (0.10, 0.35), (0.02, 0.02)),
    "overexposed": ((0.52, 0.80), (0.55, 0.80), (0.03, 0.08)),
    "low-light": ((0.012, 0.032), (0.10, 0.40), (0.02, 0.02)),
    "hdr": ((0.17, 0.34), (0.0, 0.0), (0.02, 0.02)),
}


def draw_light(seed: int, subject: int, session: int, name: str, skin: float) -> Light:
    """The lighting of one sitting; the camera's exposure suits the ``skin``'s reflectance as far as the light allows.

    Raises KeyError for an unknown name.
    """
    g = stream(seed, "light", subject, session, name)
    level, gradient, glare = RANGES[name]
    return Light(
        name, exposure=float(np.exp(g.uniform(*np.log(level)))) / skin, direction=g.uniform(0, 2 * np.pi),
        gradient=g.uniform(*gradient), glare=g.uniform(*glare), edge=g.uniform(-0.40, 0.40),
        hardness=g.uniform(2.5, 6.0), floor=g.uniform(0.02, 0.08),
    )  # fmt: skip


def flicker(light: Light, g: np.random.Generator) -> Light:
    """The same sitting one take later: a few per cent brighter or darker, turned by a few degrees."""
    return replace(
        light,
        exposure=light.exposure * float(np.exp(g.normal(0, 0.05))),
        direction=light.direction + g.normal(0, 0.05),
        edge=light.edge + g.normal(0, 0.04),
    )


def illumination(light: Light, size: int) -> NDArray[np.float32]:
    """Light that falls on each point (size, size), 1 = the exposure."""
    grid = np.linspace(-1, 1, size)
    along = np.cos(light.direction) * grid[None, :] + np.sin(light.direction) * grid[:, None]
    if light.name == "hdr":  # the shadow's edge runs mostly upright
        side = np.copysign(1.0, np.cos(light.direction))
        across = side * grid[None, :] + 0.35 * np.sin(light.direction) * grid[:, None]
        lit = light.floor + (1 - light.floor) / (1 + np.exp(-light.hardness * (across - light.edge)))
    else:
        lit = 1 + light.gradient * np.tanh(1.5 * along)
    falling: NDArray[np.float32] = np.maximum(lit, 0.02).astype(np.float32)
    return falling
