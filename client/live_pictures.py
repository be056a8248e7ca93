"""What the camera sees, made into pictures for the other processes: pairs for recognition, and the whole sensor.

Pairs are made as everywhere else (`mcoe_model.data.events`), so that the same stream gives the same pictures live and
from its recording. When the eye is still the camera says nothing, and the machine's clock closes the windows instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cameras.source import Portion
from client.ring import PAIR_SHAPE, PAIR_SLOTS, PREVIEW_SLOTS, SENSOR_SHAPE, PairRing
from mcoe_model.data.events import EVENT, Pair, Pairing, event_pictures
from mcoe_model.data.geometry import SENSOR, Geometry

#: Nothing that happened this long ago is still on its way when the camera has nothing to give.
STILL_US = 60_000
#: The whole sensor is shown this often: fifteen times a second.
_PREVIEW_NS = 66_000_000


@dataclass(frozen=True)
class Checks:
    """What the status goes by, of about the last second.

    - ``events_per_s``, ``frames_per_s``: what the camera gives.
    - ``late_frames``, ``late_events``: of all so far, those that came after their window was closed by the machine's
      clock. Pictures of the recording have them in the right window, those that were shown do not.
    """

    events_per_s: float
    frames_per_s: float
    late_frames: int
    late_events: int


class LivePictures:
    """The two rings and what goes into them. ``prefix`` begins the rings' names."""

    def __init__(self, prefix: str, geometry: Geometry, now_ns: int) -> None:
        self.pairs = PairRing.create(f"{prefix}pairs", PAIR_SLOTS, PAIR_SHAPE)
        self.preview = PairRing.create(f"{prefix}preview", PREVIEW_SLOTS, SENSOR_SHAPE)
        self._pairing = Pairing(geometry)
        self._first, self._next = 0, 0
        self._reached_us, self._late_events = -1, 0
        self._shown_ns, self._shown = now_ns, 0
        self._recent: list[NDArray[np.void]] = []
        self._frame: NDArray[np.uint8] = np.zeros(SENSOR_SHAPE, np.uint8)
        self._end_us = 0
        self._count(now_ns)

    def restart(self, geometry: Geometry | None = None) -> None:
        """What comes now does not continue what came: the camera was lost, or, with a geometry, that has changed."""
        self._pairing = Pairing(geometry or self._pairing.geometry)
        self._first = self._next = self._next + 1
        self._recent, self._reached_us = [], -1

    def add(self, portion: Portion, arrived_ns: int) -> None:
        """Show what has arrived."""
        for frame in portion.frames:
            self._put(self._pairing.add_frame(frame), arrived_ns)
            self._frame, self._end_us, self._framed = frame.image, frame.end_us, True
            self._frames += 1
        if portion.events is not None and len(portion.events):
            events = portion.events.numpy()
            self._late_events += int(np.searchsorted(events["timestamp"], self._reached_us, side="right"))
            self._put(self._pairing.add_events(events), arrived_ns)
            self._recent.append(events)
            self._end_us = max(self._end_us, int(events["timestamp"][-1]))
            self._events += len(events)
        if arrived_ns - self._shown_ns >= _PREVIEW_NS:
            self._show(arrived_ns)

    def still(self, camera_us: int, now_ns: int) -> None:
        """The camera has nothing to give although it is this late by its clock."""
        self._reached_us = max(self._reached_us, camera_us - STILL_US)
        self._put(self._pairing.reach(self._reached_us), now_ns)
        if now_ns - self._shown_ns >= _PREVIEW_NS:
            self._show(now_ns)

    def end(self, now_ns: int) -> None:
        """Nothing more will come: a recording is over."""
        self._put(self._pairing.reach(self._end_us), now_ns)

    def checks(self, now_ns: int) -> Checks:
        """Of the time since they were last asked for."""
        seconds = max(1e-9, (now_ns - self._counted_ns) / 1e9)
        found = Checks(
            events_per_s=self._events / seconds,
            frames_per_s=self._frames / seconds,
            late_frames=self._pairing.late,
            late_events=self._late_events,
        )
        self._count(now_ns)
        return found

    def close(self) -> None:
        """Take the rings away. Who reads them may go on."""
        for ring in (self.pairs, self.preview):
            ring.unlink()
            ring.close()

    def _count(self, now_ns: int) -> None:
        self._counted_ns, self._framed = now_ns, False
        self._events = self._frames = 0

    def _put(self, pairs: list[Pair], arrived_ns: int) -> None:
        for pair in pairs:
            self._next = self._first + pair.number + 1
            self.pairs.put(replace(pair, number=self._next - 1), arrived_ns)

    def _show(self, now_ns: int) -> None:
        """The newest frame, and the events since the last time."""
        events = np.concatenate([np.empty(0, EVENT), *self._recent])
        width, height = SENSOR
        places = events["y"].astype(np.int32) * width + events["x"]
        counted: NDArray[np.signedinteger[Any]] = np.bincount(
            2 * places + (events["polarity"] > 0), minlength=2 * width * height
        )
        balance = (counted[1::2] - counted[::2]).reshape(height, width)
        self.preview.put(Pair(self._shown, self._end_us, self._frame, event_pictures(balance), self._framed), now_ns)
        self._recent, self._shown_ns = [], now_ns
        self._shown += 1
