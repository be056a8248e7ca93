"""A recording in AEDAT4 as a camera: paced as it was recorded, or as fast as one reads.

A damaged packet can keep dv-processing busy for ever or abort the process: read recordings in a process that may end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from client.cameras.events import joined
from client.cameras.intake import FAULTS, Intake, Times, camera_info, ended_if_stuck
from client.cameras.source import STREAMS, CameraInfo, Portion, Stream, dv_processing
from client.said import Said
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import DataInvalid, DataMissing

#: Unpaced, a portion holds so much time.
PORTION_US = 33_333
#: A portion holds few more events than this, however many come at once, so that memory stays bounded.
_MOST_EVENTS = 500_000
#: A recording's name ends in this; dv-processing insists.
SUFFIX = ".aedat4"


class Recording:
    """The recording ``path``. ``pace``: 1 as it was recorded, 2 twice as fast; None: every read returns the next 33 ms.

    Raises MissingExtra, DataMissing where there is no such file, DataInvalid where it cannot be used.
    """

    def __init__(self, path: Path, *, pace: float | None = 1.0) -> None:
        reader = _opened(path)
        self.info = _described(reader, path)
        self._intake = intake = Intake()
        next_of: dict[Stream, Callable[[], tuple[Times, Any] | None]] = {
            "events": lambda: intake.next_events(reader.getNextEventBatch),
            "frames": lambda: intake.next_frame(reader.getNextFrame),
            "imu": lambda: intake.next_imu(reader.getNextImuBatch),
            "triggers": lambda: intake.next_triggers(reader.getNextTriggerBatch),
        }
        self._waiting = {name: _Waiting(next_of[name]) for name in STREAMS if name in self.info.streams}
        self._pace = pace
        self._began: tuple[float, int] | None = None
        self._closed = False

    @property
    def ended(self) -> bool:
        return not self._closed and all(waiting.first_us is None for waiting in self._waiting.values())

    def running(self) -> bool:
        return not (self._closed or self.ended)

    def read(self) -> Portion | None:
        first = min((us for waiting in self._waiting.values() if (us := waiting.first_us) is not None), default=None)
        if first is None or self._closed:
            return self._refusals()
        until = self._due(first)
        if "events" in self._waiting:
            until = self._waiting["events"].reach(until, _MOST_EVENTS)
        taken: dict[Stream, list[Any]] = {}
        for name, waiting in self._waiting.items():
            if name != "events":
                waiting.reach(until)
            taken[name] = waiting.take(until)
        if not any(taken.values()):
            return self._refusals()
        imu, triggers = taken.get("imu"), taken.get("triggers")
        return Portion(
            events=joined(taken["events"]) if taken.get("events") else None,
            frames=tuple(chain.from_iterable(taken.get("frames", []))),
            imu=np.concatenate(imu) if imu else None,
            triggers=np.concatenate(triggers) if triggers else None,
            refused=self._intake.counted(),
        )

    def close(self) -> None:
        self._closed = True
        self._waiting = {}

    def _due(self, first_us: int) -> int:
        """The recording's time up to which things are handed out now, when the next one is at ``first_us``."""
        if self._pace is None:
            return first_us + PORTION_US
        if self._began is None:
            self._began = time.monotonic(), first_us
        began, start_us = self._began
        return start_us + int((time.monotonic() - began) * self._pace * 1e6)

    def _refusals(self) -> Portion | None:
        refused = self._intake.counted()
        return Portion(refused=refused) if refused else None


class _Waiting:
    """What was read of a stream, and not handed out yet."""

    def __init__(self, fetch: Callable[[], tuple[Times, Any] | None]) -> None:
        self._fetch = fetch
        self._parts: deque[tuple[Times, Any]] = deque()
        self._over = False

    @property
    def first_us(self) -> int | None:
        """When the next thing happens; None at the end of the stream."""
        while not (self._parts or self._over):
            self._read_on()
        return int(self._parts[0][0][0]) if self._parts else None

    def reach(self, until_us: int, most: int | None = None) -> int:
        """Read on past a time, or until more than ``most`` wait; returns the time up to which all is here."""
        count = sum(len(times) for times, _ in self._parts)
        while not self._over and not (self._parts and self._parts[-1][0][-1] > until_us):
            if most is not None and count > most:
                return min(until_us, int(self._parts[-1][0][-1]))
            count += self._read_on()
        return until_us

    def take(self, until_us: int) -> list[Any]:
        """What happened up to a time, which does not wait any longer."""
        taken = []
        while self._parts and self._parts[0][0][0] <= until_us:
            times, content = self._parts.popleft()
            count = int(np.searchsorted(times, until_us, side="right"))
            if count < len(times):
                self._parts.appendleft((times[count:], content[count:]))
                content = content[:count]
            taken.append(content)
        return taken

    def _read_on(self) -> int:
        """Read the next part; returns how much that brought."""
        part = self._fetch()
        if part is None:
            self._over = True
        elif len(part[0]):
            self._parts.append(part)
            return len(part[0])
        return 0


def _opened(path: Path) -> Any:
    if not path.exists():
        says = "there is no recording {path}; name another file"
        raise DataMissing(Said("camera.no_recording", says, path=str(path)))
    if not path.is_file() or path.suffix != SUFFIX:
        raise _unusable(path, f"a recording is a file whose name ends in {SUFFIX}")
    dv = dv_processing()
    try:
        with ended_if_stuck():
            return dv.io.MonoCameraRecording(str(path))
    except FAULTS as fault:
        why = "it holds no AEDAT4"
        if "FileDataTable" in str(fault):
            why = "its end is missing; copy it again"
        raise _unusable(path, why) from fault


def _unusable(path: Path, why: str) -> DataInvalid:
    return DataInvalid(Said("camera.bad_recording", "{path} cannot be read: {why}", path=str(path), why=why))


def _described(reader: Any, path: Path) -> CameraInfo:
    there = {
        "events": reader.isEventStreamAvailable,
        "frames": reader.isFrameStreamAvailable,
        "imu": reader.isImuStreamAvailable,
        "triggers": reader.isTriggerStreamAvailable,
    }
    try:
        streams = frozenset(name for name in STREAMS if there[name]())
        size = reader.getEventResolution() if "events" in streams else reader.getFrameResolution()
        name = str(reader.getCameraName())
    except FAULTS as fault:
        raise _unusable(path, "its streams are not described") from fault
    if not streams & {"events", "frames"}:
        raise _unusable(path, "it holds neither events nor frames")
    if size is None or tuple(size) != SENSOR:
        raise _unusable(path, f"it was not made with a sensor of {SENSOR[0]} x {SENSOR[1]} pixels")
    return camera_info(name, streams)
