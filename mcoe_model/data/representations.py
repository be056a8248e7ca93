"""What the networks see of the events of one window: five representations, pure functions of events to grey values.

Each takes the events of a window (start, end], on a sensor of H x W pixels, and gives C <= 3 pictures (C, H, W) of grey
values, because the networks take three channels: one is copied to all three, and a channel that is lacking is the mean
picture. Gains are fixed, never a window's own maximum: what a window shows depends on its events alone, and how many
there are can be seen. NumPy only.

Differs from the sources: 8 bits, hence saturation; only `ternary` is the same picture as SEE's. A window has no memory
of the one before it.

Letters: m events, H and W height and width [pixels], C channels. Times in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import PERIOD_US, event_pictures

Uint8s = NDArray[np.uint8]
Float64s = NDArray[np.float64]

#: Grey value of no event where events have a sign.
MIDDLE = 128
#: Grey levels of one event where events are counted: signed counts saturate at 8, others at 16.
GAIN = 16
#: Time constant of a time surface: how long ago an event was whose grey value is 255 / e.
TAU_US = PERIOD_US // 2
#: Points in time of a voxel grid.
BINS = 3


class Representation(Protocol):
    """Turns the events of a window into pictures.

    - ``name``: how settings and model cards name it.
    - ``channels``: C, at most 3. ``background``: the grey value where nothing happened.
    """

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def background(self) -> int: ...

    def draw(self, events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
        """(C, H, W) of events (m,) of dtype EVENT in the order of their times, start_us < t <= end_us, all on the
        sensor of shape (H, W). Changes nothing; the same events give the same bits."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A representation made of a function."""

    name: str
    channels: int
    background: int
    function: Callable[[NDArray[np.void], int, int, tuple[int, int]], Uint8s]

    def draw(self, events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
        return self.function(events, start_us, end_us, shape)


def ternary(events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
    """(1, H, W): 255 where ON events prevail, 0 where OFF events do, 128 elsewhere.

    SEE's event pictures (Zhang et al. 2023, https://arxiv.org/abs/2310.04043).
    """
    off, on = _counts(events, shape)
    return event_pictures(on - off)[None]  # (1, H, W)


def signed_counts(events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
    """(1, H, W): 128 + GAIN x (ON - OFF), saturating.

    Event frames after Rebecq et al. 2017, "Real-time Visual-Inertial Odometry for Event Cameras using Keyframe-based
    Nonlinear Optimization", section 3 (https://rpg.ifi.uzh.ch/docs/BMVC17_Rebecq.pdf), without their motion correction.
    """
    off, on = _counts(events, shape)
    return _signed(on - off)[None]  # (1, H, W)


def two_channel_counts(events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
    """(2, H, W): GAIN x number of ON events, then of OFF events, saturating.

    Maqueda et al. 2018, "Event-based Vision meets Deep Learning on Steering Prediction for Self-driving Cars",
    section 3.1 (https://arxiv.org/abs/1804.01310). Differs: windows end with a frame, not after a fixed time.
    """
    off, on = _counts(events, shape)
    return np.minimum(GAIN * np.stack([on, off]), 255).astype(np.uint8)  # (2, H, W)


def voxel_grid(events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
    """(BINS, H, W): 128 + GAIN x the signed events around BINS points in time, saturating.

    Zhu et al. 2019, "Unsupervised Event-based Learning of Optical Flow, Depth and Egomotion", equations 1 and 2
    (https://arxiv.org/abs/1812.08156): an event is shared between the two nearest points by its distance from each.
    Differs: the first and the last point are the window's ends, not its first and last event.
    """
    height, width = shape
    place = events["y"].astype(np.int64) * width + events["x"]  # (m,)
    time = (BINS - 1) * (events["timestamp"] - start_us) / (end_us - start_us)  # (m,) in (0, BINS - 1]
    sign = np.where(events["polarity"] > 0, 1.0, -1.0)  # (m,)
    before = np.minimum(time.astype(np.int64), BINS - 2)  # (m,)
    after_share = time - before  # (m,)
    grid = np.zeros(BINS * height * width)
    for bin_of, share in ((before, 1 - after_share), (before + 1, after_share)):
        grid += np.bincount(bin_of * height * width + place, weights=sign * share, minlength=len(grid))
    return _signed(grid.reshape(BINS, height, width))


def time_surface(events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]) -> Uint8s:
    """(2, H, W): 255 x exp(-(end - t) / TAU_US) of the newest ON event of a pixel, then of its newest OFF event.

    Lagorce et al. 2017, "HOTS: A Hierarchy of Event-Based Time-Surfaces for Pattern Recognition", section 3
    (https://doi.org/10.1109/TPAMI.2016.2574707). Differs: a whole picture at the window's end, not a patch around each
    event; a pixel without an event in the window is 0.
    """
    height, width = shape
    channel = (events["polarity"] <= 0).astype(np.int64)  # (m,) 0: ON, 1: OFF
    place = (channel * height + events["y"]) * width + events["x"]  # (m,)
    surface = np.zeros(2 * height * width)
    # Of several values for one place NumPy keeps the last, which is the newest.
    surface[place] = np.exp((events["timestamp"] - end_us) / TAU_US)
    return np.rint(255 * surface).astype(np.uint8).reshape(2, height, width)


TERNARY = Drawn("ternary", 1, MIDDLE, ternary)
REPRESENTATIONS: Mapping[str, Representation] = {
    drawn.name: drawn
    for drawn in (
        TERNARY,
        Drawn("signed-counts", 1, MIDDLE, signed_counts),
        Drawn("two-channel-counts", 2, 0, two_channel_counts),
        Drawn("voxel-grid", BINS, MIDDLE, voxel_grid),
        Drawn("time-surface", 2, 0, time_surface),
    )
}


def _counts(events: NDArray[np.void], shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """OFF and ON events of each pixel: (H, W) twice."""
    height, width = shape
    place = events["y"].astype(np.int64) * width + events["x"]  # (m,)
    bins = np.bincount(2 * place + (events["polarity"] > 0), minlength=2 * height * width)
    return bins[0::2].reshape(shape), bins[1::2].reshape(shape)


def _signed(values: NDArray[np.int64] | Float64s) -> Uint8s:
    """Signed numbers of events as grey values around MIDDLE."""
    return np.rint(np.clip(MIDDLE + GAIN * values, 0, 255)).astype(np.uint8)
