"""The two halves of a DAVIS346: intensity pictures, and events accumulated between them.

Source: event pixel after v2e (Hu, Liu and Delbruck, CVPR workshops 2021, section 4, https://arxiv.org/abs/2006.07722):
logarithmic intensity, first-order low-pass whose bandwidth grows with light, thresholds that differ by pixel, leak and
shot noise. Differences: shot noise is drawn as a few random pixels per instant; the refractory time (0.5 ms) is far
below the instants' spacing (11 ms) and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT
from mcoe_model.data.reader import RawEvents
from mcoe_model.data.synthetic.lighting import Light
from mcoe_model.data.synthetic.performance import INSTANTS, PICTURES_HZ
from mcoe_model.streams import stream

F = np.float32

#: Electrons of a full intensity pixel; read noise and column pattern [full scales]; black level [grey levels].
FULL_WELL, READ_NOISE, COLUMN_PATTERN, BLACK = 9000.0, 0.0035, 0.0035, 3.0
#: Stuck pixels of a 90 x 90 picture, on average.
HOT_PIXELS = 3.0


@dataclass(frozen=True)
class EventPixel:
    """Event thresholds and their spread [natural log units], bandwidth at white, leak and shot noise [Hz]."""

    threshold: float
    spread: float
    cutoff_hz: float
    leak_hz: float
    shot_hz: float


EVENT_PIXELS: dict[str, EventPixel] = {
    "normal": EventPixel(0.22, 0.03, 200.0, 0.22, 0.02),
    "overexposed": EventPixel(0.22, 0.03, 300.0, 0.24, 0.06),
    "low-light": EventPixel(0.24, 0.04, 110.0, 0.22, 0.45),
    "hdr": EventPixel(0.22, 0.03, 200.0, 0.24, 0.10),
}


@dataclass(frozen=True, eq=False)
class Camera:
    """What is fixed in one camera: its columns' offsets, its stuck pixels, how far its event thresholds are off."""

    columns: NDArray[np.float32]  # (W,) full scales
    stuck: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # row, column, grey level
    on_off: NDArray[np.float32]  # (2, H, W) deviations of the ON and OFF threshold, in standard deviations


@lru_cache(maxsize=8)
def draw_camera(seed: int, number: int, size: int) -> Camera:
    """Camera ``number`` of the data set ``seed``, seen through a region of ``size`` x ``size`` pixels."""
    g = stream(seed, "camera", number, size)
    stuck = g.poisson(HOT_PIXELS * size * size / 8100)
    return Camera(
        columns=g.standard_normal(size, dtype=F) * F(COLUMN_PATTERN),
        stuck=(g.integers(0, size, stuck), g.integers(0, size, stuck), g.integers(150, 255, stuck)),
        on_off=g.standard_normal((2, size, size), dtype=F),
    )


def intensity_pictures(
    irradiance: NDArray[np.float32], light: Light, camera: Camera, g: np.random.Generator
) -> NDArray[np.uint8]:
    """Expose (T, H, W) irradiance [full scales] to N = T / INSTANTS pictures (N, H, W).

    The exposure ends at the picture's last instant and is short, but lasts the whole picture in low light.
    """
    _, rows, columns = irradiance.shape
    steps = irradiance.reshape(-1, INSTANTS, rows, columns)
    charge = steps.mean(axis=1) if light.name == "low-light" else steps[:, -1].copy()  # (N, H, W)
    noise = g.standard_normal(charge.shape, dtype=F)
    noise *= np.sqrt(np.clip(charge, 0, 1.2) / F(FULL_WELL) + F(READ_NOISE**2))
    charge += noise
    charge += camera.columns
    pictures: NDArray[np.uint8] = np.clip(charge * 255 + F(BLACK), 0, 255).astype(np.uint8)
    row, column, grey = camera.stuck
    pictures[:, row, column] = grey
    return pictures


def event_counts(
    irradiance: NDArray[np.float32], light: Light, camera: Camera, g: np.random.Generator
) -> NDArray[np.int16]:
    """ON minus OFF events of each picture's time: (T, H, W) irradiance [full scales] -> (N, H, W)."""
    instants, rows, columns = irradiance.shape
    counts = np.zeros((instants // INSTANTS, rows, columns), np.int16)
    for instant, (on, off, shots) in enumerate(_crossings(irradiance, light, camera, g)):
        count = counts[instant // INSTANTS]
        count += (on - off).astype(np.int16)
        np.add.at(count.reshape(-1), shots, np.where(np.arange(shots.size) % 2, -1, 1).astype(np.int16))
    return counts


def raw_events(
    irradiance: NDArray[np.float32], light: Light, camera: Camera, g: np.random.Generator
) -> RawEvents:
    """The events themselves, of (T, H, W) irradiance [full scales], with the times of the N pictures.

    The same draws as `event_counts`, whose numbers they sum up to. The events of one instant are spread over it evenly:
    a pixel's n events divide it into n + 1 equal parts, and so do the shots.
    """
    instants, _, columns = irradiance.shape
    step_us = 1e6 / (PICTURES_HZ * INSTANTS)
    parts = []
    for instant, (on, off, shots) in enumerate(_crossings(irradiance, light, camera, g)):
        places, shares, polarities = [shots], [_evenly(np.array([shots.size]))], [np.arange(shots.size) % 2 == 0]
        for polarity, count in ((True, on), (False, off)):
            times = count.astype(np.int64).reshape(-1)  # (H W,) how often
            places.append(np.repeat(np.arange(times.size), times))
            shares.append(_evenly(times))
            polarities.append(np.full(int(times.sum()), polarity))
        place = np.concatenate(places)
        part = np.empty(place.size, EVENT)
        # Never at the very start of an instant, which belongs to the one before.
        part["timestamp"] = np.ceil((instant + np.concatenate(shares)) * step_us)
        part["y"], part["x"] = np.divmod(place, columns)
        part["polarity"] = np.concatenate(polarities)
        parts.append(part[np.argsort(part["timestamp"], kind="stable")])
    edges = np.rint(np.arange(instants // INSTANTS + 1) * (1e6 / PICTURES_HZ)).astype(np.int64)
    return RawEvents(np.concatenate(parts), edges)


def _evenly(times: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / (n + 1), 2 / (n + 1), ... n / (n + 1) for every n, one after the other."""
    number = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    shares: NDArray[np.float64] = (number + 1) / np.repeat(times + 1, times)
    return shares


def _crossings(
    irradiance: NDArray[np.float32], light: Light, camera: Camera, g: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Of every instant: how many ON and OFF events each pixel has (H, W), and the pixels (flat) of the shots, which are
    ON and OFF in turn."""
    instants, rows, columns = irradiance.shape
    pixel = EVENT_PIXELS[light.name]
    dt = 1 / (PICTURES_HZ * INSTANTS)
    on_at, off_at = np.maximum(F(pixel.threshold) + F(pixel.spread) * camera.on_off, F(0.05))
    per_on, per_off = 1 / on_at, 1 / off_at
    brightness = np.log(irradiance + F(light.glare * light.exposure + 1e-3))
    bandwidth = 0.12 + 0.88 * np.clip(irradiance[0], 0, 1)  # share of the cut-off; frozen for the sequence
    follow = (1 - np.exp(-2 * np.pi * pixel.cutoff_hz * dt * bandwidth)).astype(F)
    leak = F(pixel.leak_hz * dt) * on_at
    shots = pixel.shot_hz * dt * rows * columns

    seen = brightness[0].copy()
    memory = seen - g.uniform(-0.9, 0.9, (rows, columns)).astype(F) * np.minimum(on_at, off_at)  # no burst at the start
    for instant in range(instants):
        seen += follow * (brightness[instant] - seen)
        memory -= leak
        change = seen - memory
        on = np.floor(np.clip(change * per_on, 0, 100))
        off = np.floor(np.clip(-change * per_off, 0, 100))
        memory += on * on_at - off * off_at
        where = g.integers(0, rows * columns, g.poisson(shots))
        yield on, off, where
        memory.reshape(-1)[where] = seen.reshape(-1)[where]
