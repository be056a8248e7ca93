"""A camera in another process or on another machine, over dv-processing's network transport: a connection per stream.

On this machine dv-processing connects by itself, once it is known that a camera answers. Its reader would take any
certificate for the camera's, so beyond loopback `secured` makes the connections and verifies who is there.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from client.cameras.events import joined
from client.cameras.greeting import PATIENCE_S, greeting
from client.cameras.intake import FAULTS, Intake, camera_info, ended_if_stuck
from client.cameras.secured import AUTHORITY, CERTIFICATE, KEY
from client.cameras.source import STREAMS, DeviceName, Portion, Stream, dv_processing, is_loopback
from client.said import Said
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import CameraMissing, DataMissing, McoeError

#: Batches of one stream that a read takes at most; dv-processing keeps the others.
_MOST_BATCHES = 256


class NetworkCamera:
    """The streams of one camera, frames among them. It is lost when the stream of events, or without one of frames, is.

    After that, what had arrived is still there to be read.
    """

    ended = False

    def __init__(self, readers: dict[Stream, Any], process: subprocess.Popen[str] | None) -> None:
        self._readers, self._process = readers, process
        self._main: Stream = "events" if "events" in readers else "frames"
        self._intake = Intake()
        self.info = camera_info(str(readers[self._main].getCameraName()), frozenset(readers))

    @classmethod
    def open(cls, device: DeviceName) -> NetworkCamera:
        """Connect to every stream that is served. Raises MissingExtra, CameraMissing, DataMissing for missing keys."""
        dv, process = dv_processing(), None
        if device.keys is not None:
            readers, process = _secured(dv, device, device.keys)
        else:
            readers = _connected(dv, device)
        try:
            where = "in that folder" if device.path else f"at port {device.port}"
            if not {"events", "frames"} & set(readers):
                says = f"no camera serves events or frames {where}; start the camera first"
                raise CameraMissing(Said("camera.not_served", says))
            if "frames" not in readers:  # there would be no picture, ever
                says = f"the camera {where} serves no frames, which every picture needs; turn them on"
                raise CameraMissing(Said("camera.no_frames", says))
            _check(readers)
        except CameraMissing:
            if process is not None:
                _end(process)
            raise
        return cls(readers, process)

    def read(self) -> Portion | None:
        events = self._all("events", self._intake.next_events, "getNextEventBatch")
        frames = self._all("frames", self._intake.next_frame, "getNextFrame")
        imu = self._all("imu", self._intake.next_imu, "getNextImuBatch")
        triggers = self._all("triggers", self._intake.next_triggers, "getNextTriggerBatch")
        refused = self._intake.counted()
        if not (events or frames or imu or triggers or refused):
            return None
        return Portion(
            events=joined(events) if events else None,
            frames=tuple(chain.from_iterable(frames)),
            imu=np.concatenate(imu) if imu else None,
            triggers=np.concatenate(triggers) if triggers else None,
            refused=refused,
        )

    def running(self) -> bool:
        # The other streams are no sign: one whose data nobody has taken says that it runs after its peer has gone.
        main = self._readers.get(self._main)
        return main is not None and not self._intake.gave_up(self._main) and bool(main.isRunning())

    def close(self) -> None:
        self._readers = {}
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _all(self, stream: Stream, take: Callable[[Any], tuple[Any, Any] | None], method: str) -> list[Any]:
        """Everything that has arrived in a stream and is fit to be used."""
        reader = self._readers.get(stream)
        found = []
        for _ in range(_MOST_BATCHES if reader is not None else 0):
            if (taken := take(getattr(reader, method))) is None:
                break
            if len(taken[1]):
                found.append(taken[1])
        return found


def _check(readers: dict[Stream, Any]) -> None:
    """Whether each connection brings the stream that belongs there, of the right sensor. Raises CameraMissing."""
    for stream in ("events", "frames"):
        if (reader := readers.get(stream)) is None:
            continue
        there = reader.isEventStreamAvailable() if stream == "events" else reader.isFrameStreamAvailable()
        if not there:
            says = "what is served as {stream} is another stream; serve events, frames, imu and triggers"
            raise CameraMissing(Said("camera.other_stream", says, stream=stream))
        size = reader.getEventResolution() if stream == "events" else reader.getFrameResolution()
        if size is None or tuple(size) != SENSOR:
            says = f"the camera has no sensor of {SENSOR[0]} x {SENSOR[1]} pixels; connect a DAVIS346"
            raise CameraMissing(Said("camera.other_model", says))


def _connected(dv: ModuleType, device: DeviceName) -> dict[Stream, Any]:
    """A reader for every stream that is served on this machine."""
    readers: dict[Stream, Any] = {}
    for number, stream in enumerate(STREAMS):
        address: tuple[Any, ...]
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            if device.path is not None:
                address = (str(device.path / stream),)
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(PATIENCE_S)
                    probe.connect(*address)
                    greeting(probe)
            else:
                assert device.host is not None and device.port is not None and is_loopback(device.host)
                with socket.create_connection((device.host, device.port + number), timeout=PATIENCE_S) as probe:
                    address = probe.getpeername()[:2]
                    greeting(probe)
            readers[stream] = _reader(dv, *address)
    return readers


def _secured(dv: ModuleType, device: DeviceName, keys: Path) -> tuple[dict[Stream, Any], subprocess.Popen[str]]:
    """The same over TLS, and the process that makes the connections."""
    for name in (AUTHORITY, CERTIFICATE, KEY):
        if not (keys / name).is_file():
            says = "{keys} holds no {name}, which a camera beyond this machine needs; ask who runs it"
            raise DataMissing(Said("camera.no_key", says, keys=str(keys), name=name))
    with tempfile.TemporaryDirectory(prefix="mcoe-") as folder:  # only this user can look into it
        where = (str(device.host), str(device.port), str(keys), folder)
        command = [sys.executable, "-m", "client.cameras.secured", *where]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline() or "null")
            if said is None:
                raise CameraMissing(Said("camera.broken_off", "the camera cannot be connected to"))
            if "streams" not in said:
                raise CameraMissing(Said.of_event(said))
            return {stream: _reader(dv, str(Path(folder, stream))) for stream in said["streams"]}, process
        except McoeError:
            _end(process)
            raise


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _reader(dv: ModuleType, *address: Any) -> Any:
    try:
        with ended_if_stuck():
            return dv.io.NetworkReader(*address)
    except FAULTS as fault:
        says = "the camera was lost while connecting to it; try again"
        raise CameraMissing(Said("camera.broken_off", says)) from fault
