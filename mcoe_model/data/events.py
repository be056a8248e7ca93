"""Events and frames as pairs of pictures, one pair for each frame, about every 33 ms. NumPy only.

A pair's event picture shows what happened in (end of exposure of the frame before, end of exposure of this one]. When
no frame ends within 50 ms, as with frames off or in a long exposure, the window is closed after 33 ms without one, and
the last frame stands again, for ten seconds at most: then the next frame begins anew. The same stream gives the same
pictures, live or from a file, in whatever portions it comes: only a frame that is delivered after its window was closed
differs, and such frames are counted.
Without a first frame there is no picture to stand again, so there are no pairs, and only the last events are kept.

Letters: n events, S side of a picture. Times are in microseconds of the camera's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.geometry import PICTURE_SIZE, SENSOR, Geometry

#: A window without a frame is closed once this much has gone by since the last one.
PATIENCE_US = 50_000
#: How long such a window is.
PERIOD_US = 33_333
#: So many windows without a frame are the most in a row: after a time that is wrong by years, too.
MOST_STILL = 300
#: Events that are kept until the first frame: they count only if they are later than its exposure, which is at most as
#: long ago as a frame takes to arrive.
OPENING_US = 1_000_000

#: One event: when, where (from left and top) and whether it is ON (1) or OFF (0), as dv-processing names them.
EVENT = np.dtype([("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "<i1")])


@dataclass(frozen=True)
class Frame:
    """A frame of the sensor (H, W) and its exposure."""

    start_us: int
    exposure_us: int
    image: NDArray[np.uint8]

    @property
    def end_us(self) -> int:
        """When its exposure ended."""
        return self.start_us + self.exposure_us


@dataclass(frozen=True)
class Pair:
    """Pictures (S, S) of one window. ``fresh``: whether the frame was taken in it; else it is the one before."""

    number: int
    end_us: int
    frame: NDArray[np.uint8]
    event: NDArray[np.uint8]
    fresh: bool


def event_pictures(counts: NDArray[np.signedinteger[Any]]) -> NDArray[np.uint8]:
    """SEE's look of ON minus OFF events: 128 where neither prevails, 255 where ON events do, 0 where OFF events do."""
    return np.where(counts > 0, 255, np.where(counts < 0, 0, 128)).astype(np.uint8)


def balance(events: NDArray[np.void], geometry: Geometry) -> NDArray[np.int64]:
    """ON minus OFF events in each cell of the picture (S, S), of events (n,) of dtype EVENT on the sensor."""
    places = events["y"].astype(np.int32) * SENSOR[0] + events["x"]  # (n,)
    # One count over cells and polarities: cell -1 becomes the bins before the first.
    cells = geometry.cells.reshape(-1).take(places)  # (n,)
    bins = np.bincount(2 * cells + (2 + (events["polarity"] > 0)), minlength=2 * (PICTURE_SIZE**2 + 1))
    off, on = bins[2::2], bins[3::2]  # (S S,) each
    return (on - off).reshape(PICTURE_SIZE, PICTURE_SIZE)


class Pairing:
    """Turns a stream into pairs; see the module. The first frame only opens the first window.

    A window is closed once the camera's clock is known to be past its end: by a later event, or from `reach`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        #: Frames that came after their window was closed.
        self.late = 0
        self._number = 0
        self._now = -1
        self._end: int | None = None
        self._closed_until = -1
        self._still = 0
        self._shown: NDArray[np.uint8] | None = None
        self._frames: deque[Frame] = deque()
        self._events: deque[NDArray[np.void]] = deque()

    def add_frame(self, frame: Frame) -> list[Pair]:
        """Take a frame, later than those before; returns the pairs that are now whole."""
        if frame.end_us <= self._closed_until:
            self.late += 1
            return []
        self._frames.append(frame)
        return self._closed()

    def add_events(self, events: NDArray[np.void]) -> list[Pair]:
        """Take events (n,) of dtype EVENT, in the order of their times, later than those before, as `add_frame`."""
        if len(events):
            self._events.append(events)
            # An event at the very end of a window belongs to it, and others of the same time may follow.
            self._now = max(self._now, int(events["timestamp"][-1]) - 1)
            if self._end is None and not self._frames:
                since = self._now - OPENING_US
                while self._events and int(self._events[0]["timestamp"][-1]) < since:
                    self._events.popleft()
        return self._closed()

    def reach(self, now_us: int) -> list[Pair]:
        """Nothing up to this time is still to come, as when the camera has been still for a while."""
        self._now = max(self._now, now_us)
        return self._closed()

    def _closed(self) -> list[Pair]:
        pairs = []
        while (ends := self._next_end()) is not None and ends <= self._now:
            fresh = bool(self._frames) and ends == self._frames[0].end_us
            picture = event_pictures(balance(self._take(ends), self.geometry))
            if fresh:
                self._shown = self.geometry.picture(self._frames.popleft().image)
            if self._end is not None:
                assert self._shown is not None
                pairs.append(Pair(self._number, ends, self._shown, picture, fresh))
                self._number += 1
            self._end = self._closed_until = ends
            self._still = 0 if fresh else self._still + 1
            if self._still == MOST_STILL:
                self._end, self._still = None, 0
                self._number += 1  # what comes does not continue what came
        return pairs

    def _next_end(self) -> int | None:
        """When the open window ends, as far as that is known."""
        frame = self._frames[0].end_us if self._frames else None
        if self._end is None or (frame is not None and frame - self._end <= PATIENCE_US):
            return frame
        waited_for_none = frame is not None or self._now - self._end > PATIENCE_US
        return self._end + PERIOD_US if waited_for_none else None

    def _take(self, end_us: int) -> NDArray[np.void]:
        """The waiting events up to a time, which wait no longer."""
        waiting = np.concatenate(self._events) if self._events else np.empty(0, EVENT)
        count = int(np.searchsorted(waiting["timestamp"], end_us, side="right"))
        self._events = deque([waiting[count:]] if count < len(waiting) else [])
        return waiting[:count]
