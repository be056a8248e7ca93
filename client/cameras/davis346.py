"""The DAVIS346 itself, over USB 3.

Written against dv-processing 2.0.4 and not yet run with a camera: `docs/client.md` has the list for the first time.

What the camera is set to: a frame every 33.333 ms, exposed automatically but never longer than 25 ms, or the clock of
the frames would slow down in the dark; grey; events, frames and motion on; the signal input off unless it is asked
for, and then heard at its rising edges. The event pixel's biases are the values of two public drivers built on
iniVation's libcaer (DAVIS346B), not checked on hardware.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from client.cameras.events import joined
from client.cameras.intake import FAULTS, Intake
from client.cameras.source import STREAMS, CameraInfo, Portion, dv_processing
from client.said import Said
from mcoe_model.data.events import Frame
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import CameraMissing

#: The longest exposure, and the time from one frame to the next.
LONGEST_EXPOSURE = timedelta(microseconds=25_000)
FRAME_INTERVAL = timedelta(microseconds=33_333)
#: At the longest exposure, a frame as bright as this [grey level] would be exposed for less.
_BRIGHT = 128
#: How often the camera hands over what it has: well inside the 33 ms of a window.
_COMMIT = timedelta(milliseconds=5)
#: The event pixel's biases, coarse (0-7) and fine (0-255), by dv-processing's names.
BIASES: dict[str, tuple[int, int]] = {
    "Diff": (4, 39),  # amplifier of changes
    "On": (6, 200),  # threshold of ON events
    "Off": (4, 0),  # threshold of OFF events
    "Photoreceptor": (2, 58),  # bandwidth
    "PhotoreceptorSourceFollower": (1, 33),  # bandwidth behind it
    "Refractory": (4, 25),  # rest after an event
}
#: USB vendor iniVation, how its cameras' products begin, the DAVIS346's, and from how many megabits/s it is USB 3.
_VENDOR, _PRODUCTS, _DAVIS346, _USB3 = "152a", ("840", "841"), "841a", 5000
#: Where Linux says what is plugged in, and what is opened.
SYSTEM, NODES = Path("/sys/bus/usb/devices"), Path("/dev/bus/usb")
_MOST_BATCHES = 256

UDEV_REMEDY = "install the udev rule 65-inivation.rules (docs/client.md) and plug the camera in again"


@dataclass(frozen=True)
class Plugged:
    """A camera on the bus, as Linux sees it without opening it. ``mbits``: megabits per second over its cable."""

    davis346: bool
    permitted: bool
    mbits: float

    @property
    def usb3(self) -> bool:
        return self.mbits >= _USB3


def plugged(system: Path = SYSTEM, devices: Path = NODES) -> list[Plugged]:
    """Every camera of iniVation's on this machine's USB. Needs neither dv-processing nor permission."""
    found = []
    for folder in sorted(system.glob("*")):
        try:
            vendor, product = ((folder / name).read_text().strip() for name in ("idVendor", "idProduct"))
            bus, number = (int((folder / name).read_text()) for name in ("busnum", "devnum"))
            speed = float((folder / "speed").read_text())
        except (OSError, ValueError):  # a hub's interface, or unplugged this moment
            continue
        if vendor == _VENDOR and product.startswith(_PRODUCTS):
            node = devices / f"{bus:03d}" / f"{number:03d}"
            found.append(Plugged(product == _DAVIS346, os.access(node, os.R_OK | os.W_OK), speed))
    return found


class Davis346:
    """One DAVIS346. ``camera``: dv-processing's, open."""

    ended = False

    def __init__(self, dv: ModuleType, camera: Any, signals: bool) -> None:
        self._camera: Any = camera
        self._intake = Intake()
        self._automatic = True
        _set_up(dv, camera, signals)
        self.info = CameraInfo("DAVIS346", str(camera.getSerialNumber()), frozenset(STREAMS), usb3=True)

    @classmethod
    def open(cls, serial: str | None = None, signals: bool = False) -> Davis346:
        """Open the camera with this serial number, or the only one. Raises MissingExtra, CameraMissing.

        ``signals``: rising edges at its signal input arrive as triggers.
        """
        dv = dv_processing()
        # Without a camera the constructors raise whatever they run into; so look first.
        found = dv.io.camera.discover()
        models = dv.io.camera.CameraModel
        davis = [one for one in found if one.cameraModel in (models.DAVIS, models.DAVIS_GEN2)]
        wanted = [one for one in davis if serial in (None, str(one.serialNumber))]
        if not wanted:
            raise CameraMissing(_why_not_there(bool(found), bool(davis), plugged()))
        if len(wanted) > 1:
            several = "{count} cameras are plugged in; name one as davis346:SERIAL"
            raise CameraMissing(Said("camera.several", several, count=len(wanted)))
        try:
            camera = dv.io.camera.DAVIS(wanted[0])
        except FAULTS as fault:
            raise CameraMissing(_why_not_opened(plugged())) from fault
        _check(dv, camera)
        return cls(dv, camera, signals)

    def read(self) -> Portion | None:
        if self._camera is None:
            return None
        camera, intake = self._camera, self._intake
        events = _all(lambda: intake.next_events(camera.getNextEventBatch))
        frames = _all(lambda: intake.next_frame(camera.getNextFrame))
        self._limit_exposure(list(chain.from_iterable(frames)))
        imu = _all(lambda: intake.next_imu(camera.getNextImuBatch))
        triggers = _all(lambda: intake.next_triggers(camera.getNextTriggerBatch))
        refused = intake.counted()
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
        if self._camera is None or self._intake.gave_up("events") or self._intake.gave_up("frames"):
            return False  # opened again, it is read anew
        # An unplugged camera raises nothing: it only stops running.
        return bool(self._camera.isRunning())

    def close(self) -> None:
        self._camera = None

    def _limit_exposure(self, frames: list[Frame]) -> None:
        """The camera knows no longest exposure: hold it there while it is too dark, and let go when it is not."""
        for frame in frames:
            if self._automatic and frame.exposure_us > LONGEST_EXPOSURE.total_seconds() * 1e6:
                self._camera.setAutoExposure(False)
                self._camera.setExposureDuration(LONGEST_EXPOSURE)
                self._automatic = False
            elif not self._automatic and frame.image.mean() > _BRIGHT:
                self._camera.setAutoExposure(True)
                self._automatic = True


def _all(take: Callable[[], tuple[Any, Any] | None]) -> list[Any]:
    """Everything that a stream has now."""
    found = []
    for _ in range(_MOST_BATCHES):
        if (taken := take()) is None:
            break
        if len(taken[1]):
            found.append(taken[1])
    return found


def _check(dv: ModuleType, camera: Any) -> None:
    """Raises CameraMissing for another chip, and for a cable or port that is not USB 3."""
    if camera.getSensorModel() != camera.SensorModel.DAVIS346 or tuple(camera.getEventResolution()) != SENSOR:
        says = "the camera that is plugged in is no DAVIS346 but another DAVIS; connect a DAVIS346"
        raise CameraMissing(Said("camera.other_model", says))
    speeds = dv.io.camera.libusb_speed
    fast = (speeds.LIBUSB_SPEED_SUPER, speeds.LIBUSB_SPEED_SUPER_PLUS, speeds.LIBUSB_SPEED_SUPER_PLUS_X2)
    if camera.getConnectionSpeed() not in fast:
        says = "the camera is on USB 2, which loses events; use a USB 3 port (blue) and a USB 3 cable"
        raise CameraMissing(Said("camera.usb2", says))


def _set_up(dv: ModuleType, camera: Any, signals: bool) -> None:
    """See the module."""
    camera.setColorMode(camera.ColorMode.GRAYSCALE)
    camera.setFlatten(camera.Flatten.NONE)
    camera.setTimeInterval(_COMMIT)
    camera.setFrameInterval(FRAME_INTERVAL)
    for name, (coarse, fine) in BIASES.items():
        camera.setDavis346BiasCoarseFine(getattr(camera.Davis346BiasCF, name), coarse, fine)
    camera.setEventsRunning(True)
    camera.setFramesRunning(True)
    camera.setImuRunningAccelerometer(True)
    camera.setImuRunningGyroscope(True)
    camera.setImuRunningTemperature(True)
    camera.setDetectorRisingEdges(signals)
    camera.setDetectorFallingEdges(False)
    camera.setDetectorRunning(signals)
    camera.setAutoExposure(True)


def _why_not_there(others: bool, other_davis: bool, on_the_bus: list[Plugged]) -> Said:
    if other_davis:
        says = "no camera with that serial number is plugged in, though another one is; see the label under it"
        return Said("camera.other_serial", says)
    if others:
        return Said("camera.other_model", "the camera that is plugged in is no DAVIS346; connect one")
    if on_the_bus and not any(one.permitted for one in on_the_bus):
        return Said("camera.not_permitted", f"a camera is plugged in, but this user may not open it; {UDEV_REMEDY}")
    return Said("camera.unplugged", "no camera is plugged in; connect the DAVIS346 to a USB 3 port")


def _why_not_opened(on_the_bus: list[Plugged]) -> Said:
    if on_the_bus and not any(one.permitted for one in on_the_bus):
        return Said("camera.not_permitted", f"this user may not open the camera; {UDEV_REMEDY}")
    says = "the camera cannot be opened; end the program that uses it (such as DV), or plug the camera in again"
    return Said("camera.in_use", says)
