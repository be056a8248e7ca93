"""Serve a camera to other processes: ``python -m client.cameras.serve DEVICE --dir DIR`` or ``--port PORT``.

Every stream has a connection of its own: in DIR the UNIX sockets events, frames, imu and triggers, or TCP ports PORT to
PORT + 3 in that order. Beyond loopback only over TLS, with certificate.pem and key.pem in ``--keys``, and
authority.pem, which must have signed the certificates of those that connect. One line on standard output says that the
camera can be reached; SIGTERM ends it.

Example:  python -m client.cameras.serve simulated:0 --dir /run/user/1000/camera
"""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from client.cameras.intake import FAULTS
from client.cameras.secured import AUTHORITY, CERTIFICATE, KEY
from client.cameras.source import STREAMS, CameraInfo, Portion, Stream, dv_processing, is_loopback, open_source
from mcoe_model.data.events import Frame
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import DataMissing, McoeError, PortInUse, SettingsError

#: Between two looks at a camera [s]. dv-processing's reader holds a limited number of packets and drops what comes
#: after without a word: hundreds of packets a second leave whoever reads seconds of time, thousands less than one.
_PAUSE_S = 0.005
#: At the end, how long a slow reader is waited for, and the write that is under way [s].
_PATIENCE_S, _LAST_WRITE_S = 5.0, 0.2


class Served:
    """The sockets of one camera. ``at`` is a folder, or a host and the first port.

    Never let go of one before the process ends, and end that with `os._exit`: a writer whose reader has left waits,
    when it is taken down, for a thread of its own that waits for Python's lock (dv-processing 2.0.4).
    """

    def __init__(self, info: CameraInfo, at: Path | tuple[str, int], keys: Path | None = None) -> None:
        self._dv = dv_processing()
        self._writers: dict[Stream, Any] = {}
        for number, stream in enumerate(STREAMS):
            if stream in info.streams:
                described = _described(self._dv, number, stream, f"{info.model}_{info.serial}")
                self._writers[stream] = self._listen(number, stream, described, at, keys)

    def send(self, portion: Portion) -> None:
        """Send to whoever is connected."""
        writers, dv = self._writers, self._dv
        if portion.events is not None:
            writers["events"].writeEvents(portion.events.store())
        for frame in portion.frames:
            writers["frames"].writeFrame(as_dv_frame(frame))
        if portion.imu is not None:
            writers["imu"].writeImu(as_imu_vector(portion.imu))
        if portion.triggers is not None:
            signals = dv.TriggerPacket.TriggersVector()
            for when, kind in portion.triggers.tolist():
                signals.append(dv.Trigger(when, dv.TriggerType(kind)))
            writers["triggers"].writeTriggers(signals)

    def send_rest(self) -> None:
        """Wait until what was sent has left this process, or nobody takes it."""
        until = time.monotonic() + _PATIENCE_S
        while any(w.getClientCount() and w.getQueuedPacketCount() for w in self._writers.values()):
            if time.monotonic() > until:
                return
            time.sleep(_PAUSE_S)
        time.sleep(_LAST_WRITE_S)

    def _listen(
        self, number: int, stream: Stream, described: Any, at: Path | tuple[str, int], keys: Path | None
    ) -> Any:
        writer = self._dv.io.NetworkWriter
        if isinstance(at, Path):
            at.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = at / stream
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()  # of a camera that was killed
            return writer(str(path), described)
        host, first = at
        files = [str(keys / name) for name in (CERTIFICATE, KEY, AUTHORITY)] if keys else []
        try:
            return writer("127.0.0.1" if host == "localhost" else host, first + number, described, *files)
        except FAULTS as fault:
            raise PortInUse(f"port {first + number} cannot be listened at; name another with --port") from fault


def as_dv_frame(frame: Frame) -> Any:
    """A frame as dv-processing's writers take it."""
    dv = dv_processing()
    return dv.Frame(frame.start_us, frame.exposure_us, 0, 0, frame.image, dv.FrameSource.SENSOR)


def as_imu_vector(motion: NDArray[np.void]) -> Any:
    """Motion (n,) of dtype IMU as dv-processing's writers take it."""
    dv = dv_processing()
    vector = dv.IMUPacket.ImuVector()
    for when, acceleration, rotation, temperature in motion.tolist():
        vector.append(dv.IMU(when, temperature, *acceleration, *rotation, 0.0, 0.0, 0.0))
    return vector


def _described(dv: Any, number: int, stream: Stream, camera: str) -> Any:
    match stream:
        case "events":
            described = dv.io.Stream.EventStream(number, stream, camera, SENSOR)
        case "frames":
            described = dv.io.Stream.FrameStream(number, stream, camera, SENSOR)
        case "imu":
            described = dv.io.Stream.IMUStream(number, stream, camera)
        case "triggers":
            described = dv.io.Stream.TriggerStream(number, stream, camera)
    # Compression is what cannot keep up with 12 million events per second.
    described.setCompression(dv.CompressionType.NONE)
    return described


def serve(device: str, at: Path | tuple[str, int], keys: Path | None, stopped: threading.Event) -> NoReturn:
    """Serve until ``stopped``, or until the camera has nothing more, and end the process.

    Raises what `open_source` raises, PortInUse.
    """
    camera = open_source(device)
    served = Served(camera.info, at, keys)
    print('{"is": "ready"}', flush=True)
    while not stopped.is_set():
        portion = camera.read()
        if portion is not None:
            served.send(portion)
        elif not camera.running():
            break
        stopped.wait(_PAUSE_S)
    served.send_rest()
    if isinstance(at, Path):
        for stream in camera.info.streams:
            (at / stream).unlink(missing_ok=True)
    os._exit(0)


def place(folder: Path | None, host: str, port: int | None, keys: Path | None) -> Path | tuple[str, int]:
    """Where to serve, from the command's options. Raises SettingsError, DataMissing for a key that is not there."""
    if (folder is None) == (port is None):
        raise SettingsError(["give either --dir or --port"])
    if folder is not None:
        return folder
    assert port is not None
    if not 0 < port <= 65536 - len(STREAMS):
        raise SettingsError([f"--port must be between 1 and {65536 - len(STREAMS)}, not {port}"])
    if keys is None and not is_loopback(host):
        raise SettingsError(["beyond this machine a camera is served over TLS only; give --keys DIR"])
    for name in (CERTIFICATE, KEY, AUTHORITY):
        if keys is not None and not (keys / name).is_file():
            raise DataMissing(f"{keys} holds no {name}; put it there")
    return host, port


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    said = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m client.cameras.serve", description=said)
    parser.add_argument("device", metavar="DEVICE", help="a camera, such as simulated:0 or recording:FILE")
    parser.add_argument("--dir", type=Path, help="folder for UNIX sockets")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, help="first of four TCP ports")
    parser.add_argument("--keys", type=Path, help="folder with certificate.pem, key.pem and authority.pem")
    asked = parser.parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        serve(asked.device, place(asked.dir, asked.host, asked.port, asked.keys), asked.keys, stopped)
    except McoeError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return int(fault.exit_code)


if __name__ == "__main__":
    sys.exit(main())
