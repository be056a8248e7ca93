"""The capture process with the simulated eye: what it says, what it leaves, and what is lost when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dv_processing")

from capture_process import capturing, eventually
from recorded import read_independently

from client.ring import SENSOR_SHAPE, SHARED_MEMORY, PairRing
from client.segment_files import left_over
from mcoe_model.errors import DataMissing, ExitCode


def test_it_shows_records_and_remembers(tmp_path: Path) -> None:
    with capturing("simulated:1", tmp_path) as capture:
        ready = capture.wait_for("ready")
        assert ready["camera"] == {"model": "simulated", "streams": ["events", "frames", "imu"], "usb3": None}
        clock = capture.wait_for("clock")
        assert abs(clock["utc_us"] - time.time_ns() // 1000) < 60e6 and not clock["stepped"]
        pairs, preview = capture.ring(), capture.ring("preview")
        eventually(lambda: len(pairs.since(-1)[0]) >= 10)
        newest = pairs.newest()
        assert newest is not None and newest.arrived_ns <= time.monotonic_ns()
        eventually(lambda: (shown := preview.newest()) is not None and shown.frame.max() > 0)
        eventually(lambda: (shown := preview.newest()) is not None and set(np.unique(shown.event)) == {0, 128, 255})
        shown = preview.newest()
        assert shown is not None and shown.event.shape == SENSOR_SHAPE

        assert list(tmp_path.iterdir()) == [], "something is kept that nobody asked for"
        capture.say("record", session="one")
        started = capture.wait_for("started")
        assert started["session"] == "one" and started["monotonic_ns"] <= time.monotonic_ns()
        capture.wait_for("rate", lambda rate: rate["remembered_s"] > 5.0)
        capture.say("record", session="two")
        assert "records already" in capture.wait_for("refused")["why"]
        capture.say("fit", geometry={"side": 120})
        assert "stop the recording" in capture.wait_for("refused")["why"]
        capture.say("save_last", session="last", seconds=1.5)
        saved = capture.wait_for("started")
        asked_ns = time.monotonic_ns() - saved["monotonic_ns"]
        assert asked_ns >= 1.5e9
        stopped = capture.wait_for("stopped")
        assert (stopped["session"], stopped["partial"]) == ("last", False)
        capture.say("stop")
        stopped = capture.wait_for("stopped", lambda event: event["session"] == "one")
        assert not stopped["partial"] and stopped["in_sync"]
        segments = capture.all("segment")
        # On a busy machine all this takes longer than a segment lasts, and a portion may begin where the process stood.
        [last] = [segment for segment in segments if segment["session"] == "last"]
        ones = [segment for segment in segments if segment["session"] == "one"]
        for segment in segments:
            read = read_independently([Path(segment["path"])])
            counts = (len(read.events), len(read.frames), len(read.imu), len(read.triggers))
            assert counts == tuple(segment[name] for name in ("events", "frames", "imu", "triggers"))
            assert segment["last"] == (segment in (last, ones[-1])) and any(counts)
        assert all(last[name] and ones[0][name] for name in ("events", "frames", "imu"))
        assert ones[0]["starts_us"] >= started["camera_us"] - 2_000_000
        assert last["starts_us"] >= saved["camera_us"] - 2_000_000
        assert saved["camera_us"] < last["ends_us"] < ones[-1]["ends_us"]

        number = pairs.newest()
        assert number is not None
        capture.say("fit", geometry={"x": 30, "y": 40, "side": 120, "eye": "left"})
        eventually(lambda: (now := pairs.newest()) is not None and now.number > number.number + 60)
        assert capture.end() == 0
    with pytest.raises(DataMissing):
        PairRing.attach(pairs.name)


def test_what_makes_no_sense_is_refused_and_it_goes_on(tmp_path: Path) -> None:
    with capturing("simulated", tmp_path) as capture:
        capture.wait_for("clock")
        wrong = [
            {"do": "dance"},
            {"do": "record", "session": "../elsewhere"},
            {"do": "record"},
            {"do": "save_last", "session": "s", "seconds": "long"},
            {"do": "save_last", "session": "s", "seconds": -5},
            {"do": "fit"},
            {"do": "fit", "geometry": {"side": 5}},
            {"do": "fit", "geometry": {"colour": "red"}},
        ]
        for command in wrong:
            capture.say(**command)  # type: ignore[arg-type]
            assert capture.wait_for("refused")["do"] == command["do"]
        assert capture.process.stdin is not None
        capture.process.stdin.write("not json\n[1]\n\n")
        capture.say("stop")
        capture.wait_for("rate")
        assert list(tmp_path.iterdir()) == [] and capture.end() == 0


@pytest.mark.parametrize(
    "device, code", [("toaster", ExitCode.USAGE), ("recording:/nowhere/none.aedat4", ExitCode.DATA_MISSING)]
)
def test_a_device_that_cannot_be_used_ends_it_with_one_line(tmp_path: Path, device: str, code: ExitCode) -> None:
    with capturing(device, tmp_path) as capture:
        assert capture.ended() == code
        assert capture.process.stderr is not None
        (line,) = capture.process.stderr.read().splitlines()
        assert device not in line and "none.aedat4" not in line, "its log names no path"
        (lost,) = capture.all("lost")
        assert device.split("/")[-1] in lost["why"]


def test_a_camera_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with capturing("davis346", tmp_path) as capture:
        assert capture.wait_for("lost")["why"]
        capture.say("record", session="s")
        assert "plug it in" in capture.wait_for("refused")["why"]
        assert capture.end() == 0 and len(capture.all("lost")) == 1


def test_what_is_recorded_when_it_is_asked_to_end_is_whole(tmp_path: Path) -> None:
    with capturing("simulated", tmp_path) as capture:
        capture.wait_for("clock")
        capture.say("record", session="s")
        capture.wait_for("started")
        capture.wait_for("rate")
        capture.process.send_signal(signal.SIGTERM)
        assert capture.ended() == 0
        assert [event["partial"] for event in capture.all("stopped")] == [False]
        (segment,) = capture.all("segment")
        assert len(read_independently([Path(segment["path"])]).events) == segment["events"]


def test_when_it_is_killed_the_finished_segments_are_whole_and_the_next_one_makes_new_rings(tmp_path: Path) -> None:
    with capturing("simulated", tmp_path) as killed:
        killed.wait_for("clock")
        killed.say("record", session="s")
        segment = killed.wait_for("segment")
        eventually(lambda: len(left_over(tmp_path)) == 2)
        limits = Path(f"/proc/{killed.process.pid}/limits").read_text().splitlines()
        assert [line.split()[4:6] for line in limits if line.startswith("Max core")] == [["0", "0"]]
        ring = killed.ring()
        killed.process.send_signal(signal.SIGABRT)
        assert killed.ended() == -signal.SIGABRT
        finished, torn = left_over(tmp_path)
        assert finished == ("s", 0, True, Path(segment["path"])) and torn[:3] == ("s", 1, False)
        assert len(read_independently([finished[3]]).events) == segment["events"]
        assert ring.newest() is not None, "who reads goes on"
        with capturing("simulated", tmp_path) as again:
            assert again.wait_for("ready")["rings"]["pairs"] != ring.name
            assert again.end() == 0


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    prefix = f"mcoe-test-{os.getpid()}-orphan-"
    script = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'client.capture', *sys.argv[1:]],"
        " stdout=subprocess.PIPE, stdin=subprocess.PIPE); print(child.pid, child.stdout.readline() != b'', flush=True);"
        " sys.stdin.read()"
    )
    arguments = ["--device", "simulated", "--rings", prefix, "--tmpfs", str(tmp_path), "--geometry", "{}"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, ready = parent.stdout.readline().split()
        assert ready == "True"
        parent.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_it_stops_recording_before_memory_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=36m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    try:
        with capturing("simulated", small) as capture:
            capture.wait_for("clock")
            capture.say("record", session="s")
            stopped = capture.wait_for("stopped")
            assert stopped["partial"] and "MiB of memory" in stopped["why"]
            (segment,) = capture.all("segment")
            assert len(read_independently([Path(segment["path"])]).events) == segment["events"] > 0
            capture.say("record", session="t")
            assert "MiB of memory" in capture.wait_for("refused")["why"]
            capture.wait_for("rate")
            assert capture.end() == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_neither_it_nor_what_the_main_process_uses_of_it_loads_torch_or_more() -> None:
    for modules, wanted in (
        ("client.ring, client.segment_files, client.replay", {"torch", "dv_processing", "client.capture"}),
        ("client.capture, dv_processing", {"torch", "sqlalchemy", "flwr", "fastapi"}),
    ):
        code = f"import sys, {modules}; print(*(set(sys.modules) & {wanted!r}))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert found.split() == []
