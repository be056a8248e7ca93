"""A recording: what a camera gives, as AEDAT4 segments in a private folder in memory.

dv-processing's writer needs care (all of it measured with 2.0.4): it overwrites a file that exists; it takes frames of
any shape and events off the sensor; it writes the whole packets that a slice was cut from; it keeps single samples of
motion and single signals in a buffer that dies with the process; and where it finds no room it ends the whole process.
So here a name is used once, what is not fit is left out and counted, only whole packets are written, and a segment has
its final name only once it is closed. Portions are never divided: the segments' streams, one after another, are what
one long file would hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.cameras.source import STREAMS, Portion, Stream, dv_processing
from client.portions import counts, span_us, stream_times
from client.segment_files import SEGMENT_US, PlainSegment, checked_session, finished_path, partial_path
from mcoe_model.data.events import Frame
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import McoeError, OutputExists

#: The only name that a recording's header has: a serial would say whose camera it was.
_CAMERA_NAME = "DAVIS346"
_T = TypeVar("_T")


class Recorder:
    """Records one session. ``finished`` is called with each segment once it is whole and has its name.

    ``refused`` counts what was not fit to be recorded; ``segment_us`` is how long a segment is,
    SEGMENT_US by default. Raises SettingsError for a session that cannot name a file.
    """

    def __init__(
        self, folder: Path, session: str, finished: Callable[[PlainSegment], None], segment_us: int | None = None
    ) -> None:
        self.session = checked_session(session)
        self.refused = 0
        self._folder = folder
        self._finished = finished
        self._segment_us = SEGMENT_US if segment_us is None else segment_us
        self._number = 0
        self._open: _Open | None = None
        #: The last time written of each stream: what is earlier is out of order.
        self._last: dict[Stream, int] = dict.fromkeys(STREAMS, -1)

    def add(self, portion: Portion) -> None:
        """Record what came. Raises OutputExists, and McoeError when the writer fails."""
        portion, refused = _fit(portion, self._last)
        self.refused += refused
        times = stream_times(portion)
        if not times:
            return
        earliest = min(first for first, _ in times.values())
        if self._open is not None and earliest >= self._open.starts_us + self._segment_us:
            self.cut()
        if self._open is None:
            self._open = _Open(self._folder, self.session, self._number)
        self._open.write(portion)
        self._last |= {name: last for name, (_, last) in times.items()}

    def cut(self, last: bool = False) -> None:
        """Finish the open segment, if any. What comes next goes into another one. ``last``: the recording stops."""
        if self._open is not None:
            segment = self._open.close(last)
            self._open = None
            self._number += 1
            self._finished(segment)


class _Open:
    """The segment that is being written."""

    def __init__(self, folder: Path, session: str, number: int) -> None:
        dv = dv_processing()
        self.starts_us, self._ends_us = 1 << 62, -1
        self._session, self._number = session, number
        self._partial, self._path = partial_path(folder, session, number), finished_path(folder, session, number)
        self._counts: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        try:
            if self._path.exists():
                raise FileExistsError
            os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError as fault:
            raise OutputExists(f"segment {number} of session {session} was recorded already") from fault
        config = dv.io.MonoCameraWriter.DAVISConfig(_CAMERA_NAME, SENSOR, dv.CompressionType.LZ4)
        self._writer: Any = _named(lambda: dv.io.MonoCameraWriter(str(self._partial), config))

    def write(self, portion: Portion) -> None:
        """Write a portion that is fit and holds something."""
        _named(lambda: self._write(portion))
        span = span_us(portion)
        assert span is not None
        self.starts_us, self._ends_us = min(self.starts_us, span[0]), max(self._ends_us, span[1])
        for name, count in counts(portion).items():
            self._counts[name] += count

    def close(self, last: bool) -> PlainSegment:
        """Close the file and give it its name."""
        self._writer = None  # dv-processing's only way to close a file
        os.rename(self._partial, self._path)
        return PlainSegment(
            self._session, self._number, self._path, self.starts_us, self._ends_us, **self._counts, last=last
        )

    def _write(self, portion: Portion) -> None:
        dv, writer = dv_processing(), self._writer
        if portion.events is not None:
            writer.writeEventPacket(portion.events.packet())
        for frame in portion.frames:
            image = np.ascontiguousarray(frame.image)
            source = dv.FrameSource.SENSOR
            writer.writeFrame(dv.Frame(frame.start_us, frame.exposure_us, 0, 0, image, source))
        if portion.imu is not None:
            writer.writeImuPacket(dv.IMUPacket(dv.IMUPacket.ImuVector([_motion(dv, one) for one in portion.imu])))
        if portion.triggers is not None:
            signals = [dv.Trigger(int(one["timestamp"]), dv.TriggerType(int(one["type"]))) for one in portion.triggers]
            writer.writeTriggerPacket(dv.TriggerPacket(dv.TriggerPacket.TriggersVector(signals)))


def _motion(dv: Any, sample: np.void) -> Any:
    moved, turned = sample["accelerometer"].tolist(), sample["gyroscope"].tolist()
    return dv.IMU(int(sample["timestamp"]), float(sample["temperature"]), *moved, *turned, 0.0, 0.0, 0.0)


def _fit(portion: Portion, after: dict[Stream, int]) -> tuple[Portion, int]:
    """What of a portion is in order after these times and on the sensor, and how many items are not."""
    events, imu, triggers = portion.events, portion.imu, portion.triggers
    refused = 0
    if events is not None and not (_in_order(events.numpy(), after["events"]) and _on_sensor(events.numpy())):
        refused, events = refused + len(events), None
    if imu is not None and not _in_order(imu, after["imu"]):
        refused, imu = refused + len(imu), None
    if triggers is not None and not _in_order(triggers, after["triggers"]):
        refused, triggers = refused + len(triggers), None
    frames: list[Frame] = []
    for frame in portion.frames:
        earliest = frames[-1].start_us if frames else after["frames"]
        if frame.image.shape == SENSOR[::-1] and frame.image.dtype == np.uint8 and frame.start_us >= earliest:
            frames.append(frame)
        else:
            refused += 1
    return Portion(events, tuple(frames), imu, triggers), refused


def _in_order(items: NDArray[np.void], after_us: int) -> bool:
    times = items["timestamp"]
    return not len(times) or bool(times[0] >= after_us and (times[1:] >= times[:-1]).all())


def _on_sensor(events: NDArray[np.void]) -> bool:
    width, height = SENSOR
    x, y = events["x"], events["y"]
    return not len(x) or bool(x.min() >= 0 and x.max() < width and y.min() >= 0 and y.max() < height)


def _named(act: Callable[[], _T]) -> _T:
    """Do something with dv-processing, whose every fault is a RuntimeError of many lines of C++."""
    try:
        return act()
    except RuntimeError as fault:
        raise McoeError("dv-processing could not write the recording; start a new one") from fault
