"""A camera in another process, over TLS: recorded, lost by the death of either side, and found again by itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_keys import make_authority, write_keys
from ports import free_port
from real_fleet import Process, wait_for
from real_wearable import RealWearable


@pytest.fixture
def port() -> int:
    return free_port(4)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """The camera's, and the wearable's."""
    authority = make_authority("authority")
    theirs, ours = (write_keys(tmp_path / name, authority, "127.0.0.1") for name in ("theirs", "ours"))
    return theirs, ours


@pytest.fixture
def camera(tmp_path: Path, port: int, keys: tuple[Path, Path]) -> Iterator[Process]:
    served = (sys.executable, "-m", "client.cameras.serve", "simulated:5", "--port", port, "--keys", keys[0])
    made = Process(tmp_path / "camera.log", *served)
    yield made
    made.end(signal.SIGKILL)


@pytest.fixture
def worn(tmp_path: Path, port: int, keys: tuple[Path, Path]) -> Iterator[RealWearable]:
    made = RealWearable(tmp_path / "wearable", f"network:127.0.0.1:{port}:{keys[1]}")
    made.start()
    yield made
    made.remove()


def connecting(keys: Path) -> set[int]:
    """The processes that make the wearable's connections."""
    found = set()
    for commands in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = commands.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"client.cameras.secured" in words and str(keys).encode() in words:
            found.add(int(commands.parent.name))
    return found


def begun(worn: RealWearable) -> str:
    """A session that something is recorded of."""
    wait_for(worn.sees, 60, "the camera")
    session = str(worn.ask("start"))
    wait_for(lambda: worn.written() > 1_000_000, 60, "something of it in memory")
    return session


def cut(worn: RealWearable, session: str) -> tuple[str, str, int]:
    """What is kept of a session that ended by itself."""
    wait_for(lambda: worn.status()["recording"] is None, 60, "the end of the recording")
    found = worn.session(session)
    return found["state"], found["ended_why"], found["segments"]


def test_whoever_dies_a_recording_is_cut_short_and_the_camera_found_again(
    worn: RealWearable, camera: Process, keys: tuple[Path, Path]
) -> None:
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

    session, capture = begun(worn), worn.child("client.capture")
    camera.end(signal.SIGKILL)
    assert cut(worn, session) == ("partial", "camera lost", 1)
    assert worn.status()["refusal"] == "no-camera" and worn.child("client.capture") == capture
    camera.start()

    session, [connected] = begun(worn), connecting(keys[1])
    assert capture is not None
    os.kill(capture, signal.SIGKILL)
    assert cut(worn, session) == ("partial", "capture ended", 1)
    wait_for(lambda: not Path(f"/proc/{connected}").exists(), 60, "the end of the connections with their owner")

    session, [connected] = begun(worn), connecting(keys[1])
    os.kill(connected, signal.SIGKILL)  # as if the network had gone
    assert cut(worn, session) == ("partial", "camera lost", 1)

    session = begun(worn)
    assert worn.ask("stop") == session and worn.session(session)["state"] == "whole"
    assert worn.plain_files() == [] and worn.end() == 0 and connecting(keys[1]) == set()
