"""Three clocks: the camera's, the machine's monotonic one, and UTC, which may be set at any time.

What the camera gives arrives some time after it happened, never before: the smallest difference between arrival and
the camera's time, over the last while, is where the camera's clock stands. Only the last while, because two clocks
drift apart by up to a tenth of a second in half an hour.

Times named ``_us`` without more are microseconds of the camera's clock; ``_ns`` are of the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from client.cameras.source import Portion

#: Differences are forgotten after one to two of these.
_WHILE_NS = 10_000_000_000
#: UTC that moved by more than this against the monotonic clock, from one look to the next, was set.
_STEP_NS = 100_000_000


class Offset:
    """The smallest difference between arrival and the camera's time [us], of late."""

    def __init__(self) -> None:
        self._while = -1
        self._before: int | None = None
        self._now: int | None = None

    def observe(self, camera_us: int, arrived_ns: int) -> None:
        """Something of this time has arrived."""
        if arrived_ns // _WHILE_NS != self._while:
            self._while, self._before, self._now = arrived_ns // _WHILE_NS, self._now, None
        found = arrived_ns // 1000 - camera_us
        self._now = found if self._now is None else min(self._now, found)

    @property
    def us(self) -> int | None:
        """None before anything arrived."""
        return min((one for one in (self._before, self._now) if one is not None), default=None)


class CameraClock:
    """Where the camera's clock stands, and whether its frames and its events agree on it."""

    def __init__(self) -> None:
        self._events, self._frames, self._imu = Offset(), Offset(), Offset()

    def observe(self, portion: Portion, arrived_ns: int) -> None:
        """A portion has arrived."""
        if portion.events is not None and len(portion.events):
            self._events.observe(int(portion.events.numpy()["timestamp"][-1]), arrived_ns)
        for frame in portion.frames[-1:]:
            self._frames.observe(frame.end_us, arrived_ns)
        if portion.imu is not None and len(portion.imu):
            self._imu.observe(int(portion.imu["timestamp"][-1]), arrived_ns)

    def camera_us(self, now_ns: int) -> int | None:
        """The camera's time now, at most; None before anything arrived."""
        streams = (self._events, self._frames, self._imu)
        offset = min((stream.us for stream in streams if stream.us is not None), default=None)
        return None if offset is None else now_ns // 1000 - offset

    @property
    def skew_us(self) -> int | None:
        """How much later frames arrive than events of the same time; None until both have come."""
        frames, events = self._frames.us, self._events.us
        return None if frames is None or events is None else frames - events


class WallClock:
    """UTC beside the monotonic clock. ``utc_ns`` and ``monotonic_ns`` read them."""

    def __init__(
        self, utc_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._utc_ns, self._monotonic_ns = utc_ns, monotonic_ns
        self._difference = self._read()

    def stepped(self) -> bool:
        """Whether UTC was set since this was last asked."""
        before, self._difference = self._difference, self._read()
        return abs(self._difference - before) > _STEP_NS

    def utc_us(self, at_ns: int) -> int:
        """UTC at a time of the monotonic clock, as UTC is understood now."""
        return (at_ns + self._read()) // 1000

    def _read(self) -> int:
        """UTC minus the monotonic clock [ns]; read again when the process was set aside in between."""
        before = self._monotonic_ns()
        while True:
            utc = self._utc_ns()
            after = self._monotonic_ns()
            if after - before < _STEP_NS // 10:
                return utc - (before + after) // 2
            before = after
