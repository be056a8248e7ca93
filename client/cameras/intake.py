"""What comes out of dv-processing, looked at before anybody uses it. It checks neither places, order nor pictures.

Whatever cannot be right is left out and counted, one by one or, where a packet cannot be read at all, as one.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cameras.events import StoredEvents, as_events, as_store
from client.cameras.source import IMU, TRIGGER, CameraInfo, Stream
from mcoe_model.data.events import Frame
from mcoe_model.data.geometry import SENSOR

Times = NDArray[np.int64]

#: What dv-processing raises: it has no errors of its own.
FAULTS = (RuntimeError, MemoryError, ValueError, IndexError)
#: After so many unreadable packets in a row a stream is given up: the reader may not get past them.
_TRIES = 8
#: A single call that takes longer than this will never come back [s].
STUCK_S = 20.0


@contextlib.contextmanager
def ended_if_stuck(seconds: float | None = None) -> Iterator[None]:
    """End this process (SIGALRM) if what is done inside takes longer than ``seconds``, or STUCK_S.

    dv-processing goes round in circles for ever in some damaged packets, and holds Python's lock meanwhile: nothing
    in this process could stop it. Whoever started the process notices its end.
    """
    signal.setitimer(signal.ITIMER_REAL, STUCK_S if seconds is None else seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Intake:
    """Reads the streams of one camera, checks what comes and counts what was left out."""

    def __init__(self) -> None:
        self._refused = 0
        self._last: dict[str, int] = {}
        self._failures: dict[str, int] = {}

    def counted(self) -> int:
        """How much was left out since this was last asked."""
        refused, self._refused = self._refused, 0
        return refused

    def gave_up(self, stream: Stream) -> bool:
        """Whether a stream could not be read so often in a row that it is no longer tried."""
        return self._failures.get(stream, 0) >= _TRIES

    def next_events(self, ask: Callable[[], Any]) -> tuple[Times, StoredEvents] | None:
        """Events that are on the sensor and in order, and their times (n,).

        ``ask`` is the reader's method. Here and below: None when there is nothing now, or for good.
        """
        if (store := self._next("events", ask)) is None:
            return None
        events = self._events(store)
        return events.array["timestamp"], events

    def next_frame(self, ask: Callable[[], Any]) -> tuple[Times, list[Frame]] | None:
        """A frame, or none where it cannot be right, and when its exposure ended."""
        if (given := self._next("frames", ask)) is None:
            return None
        frames = [frame for frame in (self._frame(given),) if frame is not None]
        return np.array([frame.end_us for frame in frames], np.int64), frames

    def next_imu(self, ask: Callable[[], Any]) -> tuple[Times, NDArray[np.void]] | None:
        """Motion (n,) of dtype IMU, and its times."""
        if (batch := self._next("imu", ask)) is None:
            return None
        samples = self._ordered("imu", np.array([_imu(sample) for sample in batch], IMU))
        return samples["timestamp"], samples

    def next_triggers(self, ask: Callable[[], Any]) -> tuple[Times, NDArray[np.void]] | None:
        """Signals (n,) of dtype TRIGGER, and their times."""
        if (batch := self._next("triggers", ask)) is None:
            return None
        samples = self._ordered("triggers", np.array([(one.timestamp, int(one.type)) for one in batch], TRIGGER))
        return samples["timestamp"], samples

    def _next(self, stream: Stream, ask: Callable[[], Any]) -> Any:
        """What ``ask`` returns; packets that cannot be read are left out."""
        while not self.gave_up(stream):
            try:
                with ended_if_stuck():
                    answer = ask()
            except FAULTS:
                self._refused += 1
                self._failures[stream] = self._failures.get(stream, 0) + 1
                continue
            self._failures[stream] = 0
            return answer
        return None

    def _events(self, store: Any) -> StoredEvents:
        """A store's events that are on the sensor and in order."""
        events = as_events(store.numpy())
        if len(events) == 0:
            return StoredEvents([store], events)
        last, times = self._last.get("events", -1), events["timestamp"]
        # Taken as unsigned, a negative place is far off the sensor, too.
        there = (events["x"].view(np.uint16) < SENSOR[0]) & (events["y"].view(np.uint16) < SENSOR[1])
        if not (there.all() and times[0] >= last and (times[1:] >= times[:-1]).all()):
            kept = events[there & (times >= last)]
            kept = kept[_in_order(kept["timestamp"])]
            self._refused += len(events) - len(kept)
            events, store = kept, as_store(kept)
        if len(events):
            self._last["events"] = int(events["timestamp"][-1])
        return StoredEvents([store], events)

    def _frame(self, frame: Any) -> Frame | None:
        """A frame of the whole sensor, 8 bits deep, later than the one before."""
        image, start = np.asarray(frame.image), int(frame.timestamp)
        exposure = round(frame.exposure.total_seconds() * 1e6)
        right = image.shape == SENSOR[::-1] and image.dtype == np.uint8
        if not (right and start > self._last.get("frames", -1) and exposure >= 0):
            self._refused += 1
            return None
        self._last["frames"] = start
        return Frame(start, exposure, image.copy())

    def _ordered(self, stream: str, samples: NDArray[np.void]) -> NDArray[np.void]:
        kept = samples[samples["timestamp"] >= self._last.get(stream, -1)]
        kept = kept[_in_order(kept["timestamp"])]
        self._refused += len(samples) - len(kept)
        if len(kept):
            self._last[stream] = int(kept["timestamp"][-1])
        return kept


def camera_info(name: str, streams: frozenset[Stream], *, usb3: bool | None = None) -> CameraInfo:
    """A camera by dv-processing's name for it, such as DAVIS346_00000142."""
    model, _, serial = name.rpartition("_")
    return CameraInfo(model or serial, serial, streams, usb3)


def _imu(sample: Any) -> tuple[int, tuple[float, ...], tuple[float, ...], float]:
    """One row of dtype IMU."""
    acceleration = (sample.accelerometerX, sample.accelerometerY, sample.accelerometerZ)
    return sample.timestamp, acceleration, (sample.gyroscopeX, sample.gyroscopeY, sample.gyroscopeZ), sample.temperature


def _in_order(times: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some times to keep (n,), so that they never go back.

    A time that is far too late speaks against all that follow it, one that is far too early against all before it; of
    both readings, the one that keeps more is taken.
    """
    if len(times) == 0:
        return np.zeros(0, bool)
    not_early: NDArray[np.bool_] = times >= np.maximum.accumulate(times)
    not_late: NDArray[np.bool_] = times <= np.minimum.accumulate(times[::-1])[::-1]
    return not_early if not_early.sum() >= not_late.sum() else not_late
