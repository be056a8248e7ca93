"""What the simulated camera looks at: an eye that plays expression after expression, and a DAVIS346 before it.

The eye is that of `mcoe_model.data.synthetic`, by the book (difficulty 0), drawn at half the sensor's resolution, 90
instants per second, where the default geometry looks; around it the headset is dark. What is shown when depends on
the seed and on the time since 1970 alone, so that anybody who knows both can label truthfully: see `script`.

Source of the event pixel: as `mcoe_model.data.synthetic.sensors` (v2e); between two instants its brightness is taken
to change evenly, and each event gets the time at which its threshold was crossed (as ESIM, Rebecq, Gehrig and
Scaramuzza, CoRL 2018, section 3.1).

Letters: W and H width and height of the sensor, T instants, n events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from client.cameras.source import IMU
from mcoe_model.data.events import EVENT, Frame
from mcoe_model.data.geometry import SENSOR, Geometry
from mcoe_model.data.synthetic.expression import smooth
from mcoe_model.data.synthetic.eye import render
from mcoe_model.data.synthetic.face import Face, draw_face
from mcoe_model.data.synthetic.lighting import draw_light, illumination
from mcoe_model.data.synthetic.performance import INSTANTS, PICTURES_HZ, Performance, perform
from mcoe_model.data.synthetic.sensors import EVENT_PIXELS, Camera, draw_camera, intensity_pictures
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream

#: Instants per second; a frame's exposure ends at every third.
INSTANTS_HZ = int(PICTURES_HZ) * INSTANTS
#: Each expression's turn [s]; it is fully shown from SHOWN_AFTER_S to the end. Seven turns show all seven.
TURN_S, SHOWN_AFTER_S = 4, 1.5
TURN_US = TURN_S * 1_000_000
#: The turn before passes into the next one for so long [s].
_PASSING_S = 0.4
#: The person of the seed's population that is shown; data sets number theirs from 1.
_PERSON = 0
#: Exposure [us]: short, but in low light the longest that the product allows.
EXPOSURE_US, LONGEST_EXPOSURE_US = 5_000, 25_000
#: The picture's side and place at half the sensor's resolution, and light on the headset's inside as a share of white.
_SIDE = Geometry().side // 2
_LEFT, _TOP = Geometry().x // 2, Geometry().y // 2
_HEADSET = 0.02
#: An event pixel reports at most so many events between two instants.
_MOST = 20


@dataclass(frozen=True)
class Shown:
    """An expression, and the time [us since 1970] in which it is fully shown."""

    emotion: str
    start_us: int
    end_us: int


def script(seed: int, from_us: int, to_us: int) -> list[Shown]:
    """The expressions that are fully shown in [from_us, to_us), cut to it, in order. Between them, faces change."""
    shown = []
    for turn in range(from_us // TURN_US, -(-to_us // TURN_US)):
        start = max(from_us, turn * TURN_US + round(SHOWN_AFTER_S * 1e6))
        end = min(to_us, (turn + 1) * TURN_US)
        if start < end:
            shown.append(Shown(emotion_of(seed, turn), start, end))
    return shown


def emotion_of(seed: int, turn: int) -> str:
    """The emotion of the turn that begins ``turn`` x TURN_US after 1970."""
    order = stream(seed, "script", turn // len(EMOTIONS)).permutation(len(EMOTIONS))
    return EMOTIONS[int(order[turn % len(EMOTIONS)])]


def instant_us(instant: int) -> int:
    """When an instant is: they are numbered from 1970."""
    return instant * 1_000_000 // INSTANTS_HZ


@lru_cache(maxsize=4)
def _turn(seed: int, turn: int) -> Performance:
    """What the person would do in a turn that nothing came before."""
    # Played at twice the length, of which the first half is shown: there no expression has begun to fade.
    take = perform(
        stream(seed, "turn", turn), _face(seed), emotion_of(seed, turn), 2 * TURN_S * int(PICTURES_HZ), difficulty=0.0
    )
    return _cut(take, slice(0, TURN_S * INSTANTS_HZ))


@lru_cache(maxsize=4)
def _played(seed: int, turn: int) -> Performance:
    """What the person does in a turn, coming from the one before."""
    before, take = _cut(_turn(seed, turn - 1), slice(-1, None)), _turn(seed, turn)
    passed = smooth(np.arange(take.instants) / (_PASSING_S * INSTANTS_HZ)).astype(np.float32)

    def pass_on(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        return old + (new - old) * passed

    return _mapped(take, lambda name: pass_on(_values(before, name), _values(take, name)))


@lru_cache(maxsize=4)
def _face(seed: int) -> Face:
    return draw_face(seed, _PERSON, difficulty=0.0)


class SyntheticEye:
    """The eye of ``seed`` and the sensor before it, from one instant on; its lighting is LIGHTINGS[seed % 4].

    Equal seeds and instants give equal bits. What is fixed in the sensor is drawn with the seed, too.
    """

    def __init__(self, seed: int, instant: int) -> None:
        self._seed = seed
        self._noise = stream(seed, "noise", instant)
        lighting = LIGHTINGS[seed % len(LIGHTINGS)]
        self._light = draw_light(seed, _PERSON, 0, lighting, _face(seed).skin)
        self._lit = illumination(self._light, _SIDE) * np.float32(self._light.exposure)  # (side, side)
        self._camera = _whole_sensor(draw_camera(seed, _PERSON, max(SENSOR)))
        self._pixels = _EventPixels(lighting, self._camera, self._noise)
        self._exposure_us = LONGEST_EXPOSURE_US if lighting == "low-light" else EXPOSURE_US
        self._before = instant
        self._pixels.look(self._brightness(self._irradiance(instant, instant + 1)[0]))

    def picture(self, instant: int) -> tuple[NDArray[np.void], Frame, NDArray[np.void]]:
        """The three instants that end with ``instant``, which must be later than the last one asked for.

        Returns events (n,) of dtype EVENT since the last one, the frame, motion (3,) of dtype IMU.
        """
        first = instant - INSTANTS + 1
        light = self._irradiance(first, instant + 1)  # (3, H/2, W/2)
        events = []
        for i, image in enumerate(light):
            events.append(self._pixels.see(self._brightness(image), instant_us(self._before), instant_us(first + i)))
            self._before = first + i
        image = intensity_pictures(_doubled(light), self._light, self._camera, self._noise)[0]
        frame = Frame(instant_us(instant) - self._exposure_us, self._exposure_us, image)
        return np.concatenate(events), frame, self._motion(first, instant + 1)

    def _irradiance(self, first: int, after: int) -> NDArray[np.float32]:
        """Light on the sensor (T, H/2, W/2) at instants [first, after) of one turn [full scales]."""
        width, height = SENSOR
        light = np.full((after - first, height // 2, width // 2), _HEADSET * self._light.exposure, np.float32)
        eye = light[:, _TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE]
        np.multiply(render(_face(self._seed), self._play(first, after), _SIDE), self._lit, out=eye)
        return light

    def _play(self, first: int, after: int) -> Performance:
        turn, start = divmod(first, TURN_S * INSTANTS_HZ)
        return _cut(_played(self._seed, turn), slice(start, start + after - first))

    def _brightness(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        dark = np.float32(self._light.glare * self._light.exposure + 1e-3)
        brightness: NDArray[np.float32] = np.log(light + dark)
        return brightness

    def _motion(self, first: int, after: int) -> NDArray[np.void]:
        """The headset's roll as the camera's motion sensor feels it: gravity turns, a gyroscope sees how fast."""
        roll = self._play(first, after).roll.astype(np.float64)
        motion = np.zeros(after - first, IMU)
        motion["timestamp"] = [instant_us(i) for i in range(first, after)]
        motion["accelerometer"] = np.stack([np.sin(roll), np.cos(roll), np.zeros_like(roll)], axis=1)
        motion["accelerometer"] += 0.01 * self._noise.standard_normal((len(roll), 3))
        motion["gyroscope"][:, 2] = np.degrees(np.gradient(roll)) * INSTANTS_HZ
        motion["gyroscope"] += 0.1 * self._noise.standard_normal((len(roll), 3))
        motion["temperature"] = 35.0
        return motion


class _EventPixels:
    """The event half of the sensor; brightness comes at half its resolution [natural log units]."""

    def __init__(self, lighting: str, camera: Camera, noise: np.random.Generator) -> None:
        pixel = EVENT_PIXELS[lighting]
        at = np.float32(pixel.threshold) + np.float32(pixel.spread) * camera.on_off
        self._on_at, self._off_at = np.maximum(at, np.float32(0.05))  # (H, W) each
        self._pixel, self._noise = pixel, noise

    def look(self, brightness: NDArray[np.float32]) -> None:
        """Begin with this brightness (H/2, W/2), every pixel somewhere between its thresholds: no burst comes."""
        self._seen = brightness.copy()
        away = self._noise.uniform(-0.9, 0.9, self._on_at.shape).astype(np.float32)
        self._memory = _doubled(brightness) - away * np.minimum(self._on_at, self._off_at)  # (H, W)

    def see(self, brightness: NDArray[np.float32], from_us: int, to_us: int) -> NDArray[np.void]:
        """Events in (from_us, to_us], at whose end the brightness (H/2, W/2) is this: (n,) of dtype EVENT."""
        dt = (to_us - from_us) / 1e6
        before, self._seen = self._seen, self._followed(brightness, dt)
        self._memory -= np.float32(self._pixel.leak_hz * dt) * self._on_at
        change = _doubled(self._seen)
        change -= self._memory
        crossings = [
            self._crossings(1, np.flatnonzero(change >= self._on_at), change, before),
            self._crossings(0, np.flatnonzero(change <= -self._off_at), change, before),
            self._shots(dt),
        ]
        place, on, when = (np.concatenate(parts) for parts in zip(*crossings, strict=True))
        stamp = from_us + 1 + (when * (to_us - from_us - 1)).astype(np.int64)
        order = np.argsort(stamp, kind="stable")
        events = np.empty(len(order), EVENT)
        events["timestamp"] = stamp[order]
        events["y"], events["x"] = np.divmod(place[order], SENSOR[0])
        events["polarity"] = on[order]
        return events

    def _followed(self, brightness: NDArray[np.float32], dt: float) -> NDArray[np.float32]:
        """What the photoreceptor makes of it: a low-pass whose bandwidth grows with the light."""
        bandwidth = np.float32(0.12) + np.float32(0.88) * np.clip(np.exp(brightness), 0, 1)
        follow = 1 - np.exp(np.float32(-2 * np.pi * self._pixel.cutoff_hz * dt) * bandwidth)
        followed: NDArray[np.float32] = self._seen + follow * (brightness - self._seen)
        return followed

    def _crossings(
        self, polarity: int, pixels: NDArray[np.int64], change: NDArray[np.float32], before: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float64]]:
        """Pixel, polarity and time, as a share of the interval, of every crossing (n,); moves the pixels' memory."""
        sign = 1 if polarity else -1
        threshold = (self._on_at if polarity else self._off_at).reshape(-1)[pixels].astype(np.float64)
        reached = sign * change.reshape(-1)[pixels].astype(np.float64)
        y, x = np.divmod(pixels, SENSOR[0])
        memory = self._memory.reshape(-1)
        began = np.minimum(sign * (before[y // 2, x // 2] - memory[pixels]), threshold)
        times = np.minimum(reached / threshold, _MOST).astype(np.int64)
        memory[pixels] += (sign * times * threshold).astype(np.float32)
        which = np.repeat(np.arange(len(pixels)), times)
        step = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times) + 1  # 1, 2, ... within each pixel
        when = (step * threshold[which] - began[which]) / np.maximum(reached - began, 1e-9)[which]
        return pixels[which], np.full(len(which), polarity, np.int8), np.clip(when, 0, 1)

    def _shots(self, dt: float) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float64]]:
        """Noise: some pixels report a change that was none, as `_crossings` returns it."""
        count = self._noise.poisson(self._pixel.shot_hz * dt * self._memory.size)
        where = self._noise.integers(0, self._memory.size, count)
        y, x = np.divmod(where, SENSOR[0])
        self._memory[y, x] = self._seen[y // 2, x // 2]
        return where, self._noise.integers(0, 2, count, dtype=np.int8), self._noise.uniform(0, 1, count)


def _whole_sensor(camera: Camera) -> Camera:
    """The upper part of a square camera that is as wide as the sensor."""
    height = SENSOR[1]
    rows, columns, greys = camera.stuck
    there = rows < height
    stuck = (rows[there], columns[there], greys[there])
    return replace(camera, stuck=stuck, on_off=np.ascontiguousarray(camera.on_off[:, :height]))


def _doubled(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., h, w) -> (..., 2 h, 2 w)."""
    return image.repeat(2, axis=-1).repeat(2, axis=-2)


def _cut(play: Performance, part: slice) -> Performance:
    """Some of a performance's instants."""
    return _mapped(play, lambda name: _values(play, name)[part])


def _mapped(play: Performance, value: Callable[[str], NDArray[np.float32]]) -> Performance:
    """A performance with other values, by the name of the unit or the field."""
    others = {field.name: value(field.name) for field in fields(play) if field.name != "units"}
    return Performance(units={name: value(name) for name in play.units}, **others)


def _values(play: Performance, name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = play.units[name] if name in play.units else getattr(play, name)
    return values
