"""A camera that is not there: the synthetic eye, live, so that everything can be tried without hardware."""

from __future__ import annotations

import time

import numpy as np

from client.cameras.events import NumpyEvents
from client.cameras.source import IMU, CameraInfo, Portion
from client.cameras.synthetic_eye import INSTANTS_HZ, SyntheticEye, instant_us
from mcoe_model.data.events import EVENT, Frame
from mcoe_model.data.synthetic.performance import INSTANTS

#: A portion holds so much time, as those of a DAVIS346 do: smaller ones cost more than they tell sooner.
_PORTION_US = 10_000
#: When drawing falls behind by more than this, what was missed is left out, as when a camera's buffers run over.
_PATIENCE_US = 250_000


class SimulatedCamera:
    """The eye of ``seed`` as `synthetic_eye` draws it, from ``start_us`` on, or from now.

    In real time, what has happened is handed out every 10 ms. Without ``paced`` every read returns the next
    picture at once; equal seeds and starts then give equal bits.
    """

    ended = False

    def __init__(self, seed: int, *, start_us: int | None = None, paced: bool = True) -> None:
        self._paced = paced
        self._start_us = time.time_ns() // 1000 if start_us is None else start_us
        self._opened_us = time.monotonic_ns() // 1000
        self._instant = _picture_before(self._start_us)
        self._eye = SyntheticEye(seed, self._instant)
        self._closed = False
        self._handed_us = 0
        self._events = np.empty(0, EVENT)
        self._frames: tuple[Frame, ...] = ()
        self._motion = np.empty(0, IMU)
        self.info = CameraInfo("simulated", f"SIM{seed:05d}", frozenset({"events", "frames", "imu"}))

    def read(self) -> Portion | None:
        if self._closed:
            return None
        if not self._paced:
            self._draw()
            return self._handed_out(instant_us(self._instant))
        now = self._start_us + time.monotonic_ns() // 1000 - self._opened_us
        if now - instant_us(self._instant) > _PATIENCE_US:
            self._instant = _picture_before(now)
        if now - self._handed_us < _PORTION_US:
            return None
        self._handed_us = now
        # One picture is drawn ahead, so that its events can be handed out while they happen.
        while instant_us(self._instant) < now:
            self._draw()
        return self._handed_out(now)

    def running(self) -> bool:
        return not self._closed

    def close(self) -> None:
        self._closed = True

    def _draw(self) -> None:
        self._instant += INSTANTS
        events, frame, motion = self._eye.picture(self._instant)
        self._events = np.concatenate([self._events, events])
        self._frames += (frame,)
        self._motion = np.concatenate([self._motion, motion])

    def _handed_out(self, now_us: int) -> Portion | None:
        """What happened up to a time, which does not wait any longer."""
        events = int(np.searchsorted(self._events["timestamp"], now_us, side="right"))
        motion = int(np.searchsorted(self._motion["timestamp"], now_us, side="right"))
        frames = tuple(frame for frame in self._frames if frame.end_us <= now_us)
        if not (events or motion or frames):
            return None
        portion = Portion(
            events=NumpyEvents(self._events[:events]) if events else None,
            frames=frames,
            imu=self._motion[:motion] if motion else None,
        )
        self._events, self._motion = self._events[events:], self._motion[motion:]
        self._frames = self._frames[len(frames) :]
        return portion


def _picture_before(at_us: int) -> int:
    """The last instant before a time with which a picture ends: turns hold whole pictures."""
    instant = at_us * INSTANTS_HZ // 1_000_000
    return instant - instant % INSTANTS - 1
