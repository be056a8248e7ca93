"""What every camera is to the rest of the program: portions of events, frames, motion and signals, read when asked for.

NumPy only. Each kind of camera has a file of its own, which is imported when such a camera is opened; those that need
dv-processing say how to install it. Times are in microseconds of the camera's clock, which for a camera and for the
simulated eye is the time since 1970; a recording keeps the times that it was made with.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from client.said import Said
from mcoe_model.data.events import Frame
from mcoe_model.errors import CameraMissing, MissingExtra, SettingsError

if TYPE_CHECKING:
    from types import ModuleType

#: One sample of motion: acceleration along x, y and z [g], rotation about them [degrees/s], temperature [Celsius].
IMU = np.dtype(
    [("timestamp", "<i8"), ("accelerometer", "<f4", (3,)), ("gyroscope", "<f4", (3,)), ("temperature", "<f4")]
)
#: One signal, with the number that dv-processing's TriggerType gives its kind.
TRIGGER = np.dtype([("timestamp", "<i8"), ("type", "<i1")])

Stream = Literal["events", "frames", "imu", "triggers"]
STREAMS: tuple[Stream, ...] = ("events", "frames", "imu", "triggers")

Kind = Literal["davis346", "recording", "network", "simulated", "none"]
EXAMPLES = (
    "davis346, davis346:SERIAL, davis346+signals, davis346+signals:SERIAL, recording:FILE, network:DIR, "
    "network:HOST:PORT, network:HOST:PORT:KEYS, simulated, simulated:SEED or none"
)


class Events(Protocol):
    """Events in the order of their times, all of them on the sensor."""

    def __len__(self) -> int: ...

    def numpy(self) -> NDArray[np.void]:
        """The events (n,) of dtype EVENT."""

    def packet(self) -> Any:
        """The same events as dv-processing's EventPacket, the only thing that its file writer may be given."""

    def store(self) -> Any:
        """The same events as dv-processing's EventStore, for its network writer."""


@dataclass(frozen=True)
class Portion:
    """What came since the last read. Every stream is in the order of its times, also from one portion to the next.

    ``imu`` and ``triggers`` have dtype IMU and TRIGGER. ``refused``: events, frames, samples and whole packets that
    were left out since they cannot be right: not on the sensor, out of order, of another shape or depth, or unreadable.
    """

    events: Events | None = None
    frames: tuple[Frame, ...] = ()
    imu: NDArray[np.void] | None = None
    triggers: NDArray[np.void] | None = None
    refused: int = 0


@dataclass(frozen=True)
class CameraInfo:
    """What a camera is. ``usb3`` is None where no cable is involved."""

    model: str
    serial: str
    streams: frozenset[Stream]
    usb3: bool | None = None


class CameraSource(Protocol):
    """A camera that is open."""

    @property
    def info(self) -> CameraInfo: ...

    @property
    def ended(self) -> bool:
        """A recording was read to its end. Whatever else is no longer running was lost."""

    def read(self) -> Portion | None:
        """What came since the last read, or None: nothing, for now or, when no longer running, for good."""

    def running(self) -> bool:
        """More may come. False at a recording's end, and when a camera was unplugged or a connection was lost.

        What had come before is read until there is None.
        """

    def close(self) -> None:
        """Let the camera go. May be called twice."""


@dataclass(frozen=True)
class DeviceName:
    """A camera as the user names it; only what belongs to its kind is set.

    - ``serial``: of a davis346, or None for the only one that is there; ``signals``: listen to its signal input.
    - ``path``: a recording's file, or the folder with a network camera's UNIX sockets.
    - ``host``, ``port``: a network camera's address; its streams are at this port and the three that follow.
    - ``keys``: folder with `authority.pem`, `certificate.pem` and `key.pem`, for a camera on another machine.
    - ``seed``: of the simulated eye.
    """

    kind: Kind
    serial: str | None = None
    signals: bool = False
    path: Path | None = None
    host: str | None = None
    port: int | None = None
    keys: Path | None = None
    seed: int = 0


def parse_device(text: str) -> DeviceName:
    """The camera that ``text`` names; see EXAMPLES. Raises SettingsError. Whether it is there is not looked at."""
    kind, colon, rest = text.partition(":")
    match kind:
        case "none" if not colon:
            return DeviceName("none")
        case "davis346" | "davis346+signals" if rest or not colon:
            return DeviceName("davis346", serial=rest or None, signals=kind != "davis346")
        case "recording" if rest:
            return DeviceName("recording", path=Path(rest).expanduser())
        case "simulated" if not colon:
            return DeviceName("simulated")
        case "simulated" if rest.isascii() and rest.isdigit():
            return DeviceName("simulated", seed=int(rest))
        case "network" if rest:
            return _parse_network(rest)
    raise SettingsError([f"device {text!r} is not known; write {EXAMPLES}"])


def _parse_network(text: str) -> DeviceName:
    """``DIR``, ``HOST:PORT`` or ``HOST:PORT:KEYS``; an IPv6 address stands in brackets."""
    if text[0] in "/.~" or ":" not in text:
        return DeviceName("network", path=Path(text).expanduser())
    if text[0] == "[":
        host, _, rest = text[1:].partition("]:")
    else:
        host, _, rest = text.partition(":")
    number, _, keys = rest.partition(":")
    port = int(number) if number.isascii() and number.isdigit() else 0
    faults = []
    if not host:
        faults.append("a network camera's host is missing; write network:HOST:PORT")
    if not 0 < port <= 65535 - len(STREAMS) + 1:
        faults.append(f"a network camera's first port must be between 1 and {65536 - len(STREAMS)}, not {number!r}")
    if host and not keys and not is_loopback(host):
        faults.append(
            "a camera that is not on this machine is reached over TLS only; write network:HOST:PORT:DIR, "
            "with authority.pem, certificate.pem and key.pem in DIR"
        )
    if faults:
        raise SettingsError(faults)
    return DeviceName("network", host=host, port=port, keys=Path(keys).expanduser() if keys else None)


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def open_source(text: str) -> CameraSource:
    """Open the camera that ``text`` names.

    Raises SettingsError for a name that is none, MissingExtra without dv-processing where it is needed, CameraMissing
    when the camera is not there or cannot be used, DataMissing and DataInvalid for a recording.
    """
    device = parse_device(text)
    match device.kind:
        case "davis346":
            from client.cameras.davis346 import Davis346

            return Davis346.open(device.serial, device.signals)
        case "recording":
            from client.cameras.recording import Recording

            assert device.path is not None
            return Recording(device.path)
        case "network":
            from client.cameras.network import NetworkCamera

            return NetworkCamera.open(device)
        case "simulated":
            from client.cameras.simulated import SimulatedCamera

            return SimulatedCamera(device.seed)
    raise CameraMissing(Said("camera.none", "device none has no camera; name one with --device"))


def find_again(text: str, lost: CameraInfo) -> CameraSource | None:
    """The same camera, open again after it was lost, or None while it is not back. A recording never comes back."""
    device = parse_device(text)
    if device.kind == "recording":
        return None
    try:
        found = open_source(f"{text.partition(':')[0]}:{lost.serial}" if device.kind == "davis346" else text)
    except CameraMissing:
        return None
    if (found.info.model, found.info.serial) != (lost.model, lost.serial):
        found.close()
        return None
    return found


def dv_processing() -> ModuleType:
    """The module dv_processing, loaded when first asked for. Raises MissingExtra."""
    try:
        import dv_processing
    except ImportError as fault:
        says = "this camera needs dv-processing; install it with: pip install 'mcoe[capture]'"
        raise MissingExtra(Said("camera.no_driver", says)) from fault
    module: ModuleType = dv_processing
    return module
