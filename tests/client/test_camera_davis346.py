"""The DAVIS346's adapter: it uses only what the installed dv-processing has, and refuses in the right words.

The camera itself is a stand-in, since none is here; it has exactly the methods of the real class.
"""

from __future__ import annotations

import ast
import inspect
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dv_processing as dv
import numpy as np
import pytest
from toy_recordings import START_US, make_events

from client.cameras import davis346
from client.cameras.davis346 import BIASES, Plugged, plugged
from client.cameras.events import NumpyEvents
from client.cameras.source import find_again, open_source
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import CameraMissing

REAL = dv.io.camera.DAVIS


class ToyDavis:
    """A DAVIS346 that notes what it was set to. Whatever the real class lacks, it lacks."""

    SensorModel, ColorMode = REAL.SensorModel, REAL.ColorMode
    Flatten, Davis346BiasCF = REAL.Flatten, REAL.Davis346BiasCF
    speed = dv.io.camera.libusb_speed.LIBUSB_SPEED_SUPER
    model = REAL.SensorModel.DAVIS346

    def __init__(self, descriptor: Any) -> None:
        self.serial = descriptor.serialNumber
        self.plugged_in = True
        self.frames: list[Any] = []
        self.events: list[Any] = []
        self.said: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        assert hasattr(REAL, name), f"the real camera has no {name}"
        if name.startswith("set"):
            return lambda *values: self.said.append((name, *values))
        answers = {
            "getSerialNumber": self.serial, "getSensorModel": self.model, "getEventResolution": SENSOR,
            "getConnectionSpeed": self.speed, "isRunning": self.plugged_in,
            "getNextImuBatch": None, "getNextTriggerBatch": None,
        }  # fmt: skip
        if name == "getNextEventBatch":
            return lambda: self.events.pop(0) if self.events else None
        if name == "getNextFrame":
            return lambda: self.frames.pop(0) if self.frames else None
        return lambda: answers[name]


class Bus:
    """What is plugged in."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.opened: list[ToyDavis] = []
        self.kind = ToyDavis

    def open(self, descriptor: Any) -> ToyDavis:
        self.opened.append(self.kind(descriptor))
        return self.opened[-1]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()
    camera = SimpleNamespace(
        discover=lambda: bus.found, DAVIS=bus.open,
        CameraModel=dv.io.camera.CameraModel, libusb_speed=dv.io.camera.libusb_speed,
    )  # fmt: skip
    monkeypatch.setattr(davis346, "dv_processing", lambda: SimpleNamespace(io=SimpleNamespace(camera=camera)))
    monkeypatch.setattr(davis346, "plugged", lambda: [])
    return bus


def descriptor(serial: str, model: Any = dv.io.camera.CameraModel.DAVIS) -> Any:
    return SimpleNamespace(serialNumber=serial, cameraModel=model)


def test_whatever_is_used_exists_in_the_installed_module() -> None:
    used = set()
    for node in ast.walk(ast.parse(inspect.getsource(davis346))):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            for start, real in (("camera.", REAL), ("self._camera.", REAL), ("dv.io.camera.", dv.io.camera)):
                if text.startswith(start):
                    used.add((real, text.removeprefix(start)))
    assert len(used) > 25
    for real, name in used:
        for part in name.split("."):
            assert hasattr(real, part), name
            real = getattr(real, part)
    for name in BIASES:
        assert hasattr(REAL.Davis346BiasCF, name)
    for field in ("serialNumber", "cameraModel"):
        assert hasattr(dv.io.camera.USBDevice.DeviceDescriptor, field)


@pytest.mark.parametrize(
    ("method", "takes"),
    [
        ("setExposureDuration", "datetime.timedelta"),
        ("setFrameInterval", "datetime.timedelta"),
        ("setTimeInterval", "datetime.timedelta"),
        ("setAutoExposure", "bool"),
        ("setDavis346BiasCoarseFine", "Davis346BiasCF, coarse: typing.SupportsInt"),
        ("getConnectionSpeed", "libusb_speed"),
        ("setDetectorRisingEdges", "bool"),
    ],
)
def test_signatures_are_those_that_it_was_written_for(method: str, takes: str) -> None:
    assert takes in getattr(REAL, method).__doc__


def test_without_a_camera_the_real_module_says_so() -> None:
    assert dv.io.camera.discover() == []
    with pytest.raises(CameraMissing, match="no camera is plugged in; connect the DAVIS346 to a USB 3 port"):
        open_source("davis346")


def test_refusals_name_the_remedy(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(device: str = "davis346") -> str:
        with pytest.raises(CameraMissing) as fault:
            open_source(device)
        return str(fault.value)

    monkeypatch.setattr(davis346, "plugged", lambda: [Plugged(True, permitted=False, mbits=5000)])
    assert "udev rule" in refusal()
    bus.found = [descriptor("7", dv.io.camera.CameraModel.DVXPLORER)]
    assert "no DAVIS346" in refusal()
    bus.found = [descriptor("7"), descriptor("8")]
    assert "davis346:SERIAL" in refusal()
    assert "no camera with that serial number" in refusal("davis346:9")
    bus.found = [descriptor("7")]

    class Other(ToyDavis):
        model = REAL.SensorModel.DAVIS240C

    class Slow(ToyDavis):
        speed = dv.io.camera.libusb_speed.LIBUSB_SPEED_HIGH

    def fails(descriptor: Any) -> Any:
        raise RuntimeError("C++ line\nstack trace")

    bus.kind = Other
    assert "another DAVIS" in refusal()
    bus.kind = Slow
    assert "USB 2" in refusal() and "USB 3 port" in refusal()
    bus.kind = fails
    assert "may not open" in refusal() and "udev rule" in refusal()
    monkeypatch.setattr(davis346, "plugged", lambda: [Plugged(True, permitted=True, mbits=5000)])
    assert "end the program that uses it" in refusal() and "\n" not in refusal()


def test_it_is_set_up_as_documented(bus: Bus) -> None:
    bus.found = [descriptor("00000142")]
    camera = open_source("davis346")
    assert (camera.info.model, camera.info.serial, camera.info.usb3) == ("DAVIS346", "00000142", True)
    said = bus.opened[0].said
    assert ("setFrameInterval", timedelta(microseconds=33_333)) in said
    assert ("setAutoExposure", True) in said and ("setDetectorRunning", False) in said
    for name, values in BIASES.items():
        assert ("setDavis346BiasCoarseFine", getattr(REAL.Davis346BiasCF, name), *values) in said


def test_the_documented_biases_are_those_that_are_set_and_left() -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| (\d+) \|", text, re.MULTILINE)
    assert {name: (int(coarse), int(fine)) for name, coarse, fine in rows} == BIASES
    [left] = re.findall(r"`Davis346BiasVDAC` \(([^)]*)\)", text)
    assert all(hasattr(REAL.Davis346BiasVDAC, name) for name in re.findall(r"`(\w+)`", left))


def frame(number: int, exposure_us: int, grey: int) -> Any:
    image = np.full(SENSOR[::-1], grey, np.uint8)
    return dv.Frame(START_US + number * 33_333, exposure_us, 0, 0, image, dv.FrameSource.SENSOR)


def test_the_exposure_is_held_at_25_ms_in_the_dark_and_let_go_in_the_light(bus: Bus) -> None:
    bus.found = [descriptor("1")]
    camera = open_source("davis346")
    toy = bus.opened[0]

    def said_after(*frames: Any) -> list[tuple[Any, ...]]:
        toy.said.clear()
        toy.frames += frames
        assert camera.read() is not None
        return toy.said

    assert said_after(frame(0, 25_000, 40)) == []
    held = [("setAutoExposure", False), ("setExposureDuration", timedelta(milliseconds=25))]
    assert said_after(frame(1, 26_000, 40)) == held
    assert said_after(frame(2, 26_000, 40), frame(3, 25_000, 40)) == []
    assert said_after(frame(4, 25_000, 200)) == [("setAutoExposure", True)]


def test_everything_that_came_is_read_and_checked(bus: Bus) -> None:
    bus.found = [descriptor("1")]
    camera = open_source("davis346")
    first, second = make_events(100, START_US, 1000), make_events(100, START_US + 1000, 1000)
    second["x"][7] = 346
    bus.opened[0].events += [NumpyEvents(first).store(), NumpyEvents(second).store()]
    bus.opened[0].frames += [frame(0, 5_000, 9)]
    portion = camera.read()
    assert portion is not None and portion.events is not None
    assert len(portion.events) == portion.events.store().size() == 199
    assert portion.refused == 1 and portion.frames[0].image[0, 0] == 9
    assert camera.read() is None


def test_an_unplugged_camera_is_found_again_by_its_serial_number(bus: Bus) -> None:
    bus.found = [descriptor("1")]
    camera = open_source("davis346")
    assert camera.running() and not camera.ended
    bus.opened[0].plugged_in = False
    bus.found = []
    assert not camera.running() and camera.read() is None and not camera.ended
    assert find_again("davis346", camera.info) is None
    bus.found = [descriptor("2")]  # another camera is not the same
    assert find_again("davis346", camera.info) is None
    bus.found = [descriptor("2"), descriptor("1")]
    again = find_again("davis346", camera.info)
    assert again is not None and again.info == camera.info and again.running()
    again.close()
    assert not again.running() and again.read() is None


@pytest.mark.parametrize("method", ["getNextEventBatch", "getNextFrame"])
def test_a_camera_whose_packets_cannot_be_read_any_more_is_lost_though_it_runs(bus: Bus, method: str) -> None:
    bus.found = [descriptor("1")]
    camera = open_source("davis346")

    def fails() -> Any:
        raise RuntimeError("C++ line\nstack trace")

    setattr(bus.opened[0], method, fails)
    portion = camera.read()
    assert portion is not None and portion.refused > 1
    assert bus.opened[0].isRunning() and not camera.running() and camera.read() is None
    again = find_again("davis346", camera.info)
    assert again is not None and again.running()


@pytest.mark.parametrize(("device", "listens"), [("davis346", False), ("davis346+signals", True)])
def test_signals_are_listened_to_when_asked_also_by_a_camera_that_came_back(
    bus: Bus, device: str, listens: bool
) -> None:
    bus.found = [descriptor("1")]
    camera = open_source(device)
    again = find_again(device, camera.info)
    assert again is not None
    for opened in bus.opened:
        assert ("setDetectorRunning", listens) in opened.said
        assert ("setDetectorRisingEdges", listens) in opened.said


def test_the_bus_is_looked_at_without_opening_anything(tmp_path: Path) -> None:
    def device(name: str, vendor: str, product: str, speed: str) -> None:
        (tmp_path / name).mkdir()
        files = {"idVendor": vendor, "idProduct": product, "busnum": "2", "devnum": "5", "speed": speed}
        for file, text in files.items():
            (tmp_path / name / file).write_text(f"{text}\n")

    device("1-1", "152a", "841a", "5000")
    device("1-2", "152a", "841b", "480")
    device("1-3", "8087", "0024", "480")
    (tmp_path / "1-3:1.0").mkdir()
    nodes = tmp_path / "nodes"
    assert plugged(tmp_path, nodes) == [Plugged(True, False, 5000), Plugged(False, False, 480)]
    assert [one.usb3 for one in plugged(tmp_path, nodes)] == [True, False]
    (nodes / "002").mkdir(parents=True)
    (nodes / "002" / "005").touch()
    assert plugged(tmp_path, nodes) == [Plugged(True, True, 5000), Plugged(False, True, 480)]
    assert plugged(tmp_path / "missing", nodes) == []
