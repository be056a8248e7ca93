"""A camera in another process, over dv-processing's network transport: recorded, lost, and found again by itself."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_fleet import Process, wait_for
from real_wearable import RealWearable


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "camera").mkdir(mode=0o700)
    served = (sys.executable, "-m", "client.cameras.serve", "simulated:5", "--dir", tmp_path / "camera")
    made = Process(tmp_path / "camera.log", *served)
    yield made
    made.end(signal.SIGKILL)


@pytest.fixture
def worn(tmp_path: Path) -> Iterator[RealWearable]:
    made = RealWearable(tmp_path / "wearable", f"network:{tmp_path / 'camera'}")
    made.start()
    yield made
    made.remove()


def test_a_camera_that_is_lost_ends_its_recording_and_is_found_again(worn: RealWearable, camera: Process) -> None:
    worn.ask("new_wearer", code="P01", passphrase=None)
    for kind in ("capture", "labels"):
        worn.ask("consent", kind=kind, language="en")
    wait_for(worn.sees, 60, "the camera")
    worn.ask("start")
    time.sleep(3)
    said = worn.ask("show", session=worn.ask("stop"))
    [span] = said["spans"]
    assert said["state"] == "whole" and said["seconds"] > 1
    assert worn.ask("label", span=span["id"], label="disgust", intensity=2)["label"] == "disgust"

    session = worn.ask("start")
    wait_for(lambda: worn.written() > 1_000_000, 60, "something of it on the disk")
    capture = worn.child("client.capture")
    camera.end(signal.SIGKILL)
    wait_for(lambda: worn.status()["recording"] is None, 60, "the end of the recording")
    cut = worn.session(session)
    assert (cut["state"], cut["ended_why"], cut["segments"]) == ("partial", "camera lost", 1)
    assert worn.status()["refusal"] == "no-camera" and worn.child("client.capture") == capture

    camera.start()
    wait_for(worn.sees, 60, "the same camera")
    worn.ask("start")
    wait_for(lambda: worn.written() > 1_000_000, 60, "a recording")
    assert worn.session(worn.ask("stop"))["state"] == "whole"
    assert worn.plain_files() == [] and worn.end() == 0
