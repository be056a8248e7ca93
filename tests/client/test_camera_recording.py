"""Recordings as cameras: everything comes, once and in order; whatever cannot be right is left out and counted."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import dv_processing as dv
import numpy as np
import pytest
from toy_recordings import CONFIG, START_US, make_events, write_recording

from client.cameras.events import NumpyEvents, StoredEvents
from client.cameras.intake import Intake
from client.cameras.recording import Recording
from client.cameras.source import Portion, find_again, open_source
from mcoe_model.data.geometry import SENSOR
from mcoe_model.errors import DataInvalid, DataMissing


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("recording") / "whole.aedat4"
    return path, write_recording(path)


def read_all(path: Path) -> list[Portion]:
    camera, portions = Recording(path, pace=None), []
    while camera.running():
        if (portion := camera.read()) is not None:
            portions.append(portion)
    assert camera.ended and camera.read() is None
    return portions


def events_of(portions: list[Portion]) -> np.ndarray:
    return np.concatenate([portion.events.numpy() for portion in portions if portion.events is not None])


def test_everything_comes_once_and_in_order(recording: tuple[Path, np.ndarray]) -> None:
    path, events = recording
    portions = read_all(path)
    assert events_of(portions).tobytes() == events.tobytes()
    frames = [frame for portion in portions for frame in portion.frames]
    assert [frame.start_us for frame in frames] == [START_US + i * 33_333 for i in range(30)]
    assert [int(frame.image[0, 0]) for frame in frames] == list(range(30))
    assert {frame.exposure_us for frame in frames} == {5_000}
    motion = np.concatenate([portion.imu for portion in portions if portion.imu is not None])
    assert len(motion) == 1000
    assert (motion["accelerometer"] == [0, 1, 0]).all() and (motion["gyroscope"] == [0, 0, 2]).all()
    (signals,) = [portion.triggers for portion in portions if portion.triggers is not None]
    assert signals.tolist() == [(START_US, int(dv.TriggerType.EXTERNAL_SIGNAL_RISING_EDGE))]
    assert sum(portion.refused for portion in portions) == 0


def test_streams_of_a_portion_belong_together(recording: tuple[Path, np.ndarray]) -> None:
    before = 0
    for portion in read_all(recording[0]):
        first, last = [], []
        for times in (
            portion.events.numpy()["timestamp"] if portion.events is not None else [],
            [frame.end_us for frame in portion.frames],
            portion.imu["timestamp"] if portion.imu is not None else [],
        ):
            if len(times):
                first.append(int(times[0]))
                last.append(int(times[-1]))
        assert min(first) > before
        assert max(last) - min(first) <= 33_333
        before = max(last)


def test_a_portions_packet_holds_its_events_and_no_others(recording: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """`writeEvents` of a slice writes all that it was cut from: the packets of portions must not."""
    writer = dv.io.MonoCameraWriter(str(tmp_path / "copy.aedat4"), CONFIG("DAVIS346_1", SENSOR))
    for portion in read_all(recording[0]):
        if portion.events is not None:
            assert len(portion.events.packet().elements) == portion.events.store().size() == len(portion.events)
            writer.writeEventPacket(portion.events.packet())
    del writer
    assert events_of(read_all(tmp_path / "copy.aedat4")).tobytes() == recording[1].tobytes()


def test_who_made_it_is_known(recording: tuple[Path, np.ndarray]) -> None:
    info = Recording(recording[0]).info
    assert (info.model, info.serial) == ("DAVIS346", "00000142")
    assert info.streams == {"events", "frames", "imu", "triggers"} and info.usb3 is None


def test_it_is_paced_as_it_was_recorded(recording: tuple[Path, np.ndarray]) -> None:
    began, ends = time.monotonic(), list[int]()  # before it opens, or it may be ahead of this
    camera = open_source(f"recording:{recording[0]}")
    while camera.running():
        if (portion := camera.read()) is not None:
            now_us = START_US + (time.monotonic() - began) * 1e6
            assert all(frame.end_us <= now_us for frame in portion.frames)
            ends += [frame.end_us for frame in portion.frames]
        time.sleep(0.005)
    assert time.monotonic() - began > 0.9
    assert len(ends) == 30 and all(sooner < later for sooner, later in pairwise(ends))
    assert find_again(f"recording:{recording[0]}", camera.info) is None


def test_a_closed_recording_gives_nothing(recording: tuple[Path, np.ndarray]) -> None:
    camera = Recording(recording[0], pace=None)
    camera.read()
    camera.close()
    camera.close()
    assert camera.read() is None and not camera.running() and not camera.ended


def test_a_pause_in_a_recording_is_kept_in_the_times(tmp_path: Path) -> None:
    writer = dv.io.MonoCameraWriter(str(tmp_path / "a.aedat4"), dv.io.MonoCameraWriter.EventOnlyConfig("X_1", SENSOR))
    for start in (START_US, START_US + 60_000_000):
        writer.writeEventPacket(NumpyEvents(make_events(10, start, 1000)).packet())
    del writer
    assert [len(portion.events or ()) for portion in read_all(tmp_path / "a.aedat4")] == [10, 10]


def refusal(path: Path) -> str:
    with pytest.raises((DataInvalid, DataMissing)) as fault:
        Recording(path)
    text = str(fault.value)
    assert "\n" not in text and "hpp" not in text  # one line, none of C++'s
    return text


def test_files_that_are_no_recordings_are_refused(recording: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert "there is no recording" in refusal(tmp_path / "missing.aedat4")
    assert "ends in .aedat4" in refusal(tmp_path)
    (tmp_path / "a.txt").write_bytes(recording[0].read_bytes())
    assert "ends in .aedat4" in refusal(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "fifo.aedat4")
    assert "ends in .aedat4" in refusal(tmp_path / "fifo.aedat4")
    (tmp_path / "empty.aedat4").touch()
    (tmp_path / "junk.aedat4").write_bytes(b"junk" * 1000)
    for name in ("empty", "junk"):
        assert "it holds no AEDAT4" in refusal(tmp_path / f"{name}.aedat4")
    whole = recording[0].read_bytes()
    (tmp_path / "cut.aedat4").write_bytes(whole[: len(whole) // 2])
    assert "its end is missing" in refusal(tmp_path / "cut.aedat4")


def test_another_sensors_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.aedat4"
    writer = dv.io.MonoCameraWriter(str(path), dv.io.MonoCameraWriter.EventOnlyConfig("DVXplorer_1", (640, 480)))
    writer.writeEventPacket(NumpyEvents(make_events(10, START_US, 1000)).packet())
    del writer
    assert "346 x 260" in refusal(path)


def test_a_recording_without_events_or_pictures_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "nothing.aedat4"
    writer = dv.io.MonoCameraWriter(str(path), CONFIG("DAVIS346_1", SENSOR))
    del writer
    with contextlib.suppress(DataInvalid):
        assert read_all(path) == []


def test_a_recording_whose_writer_was_killed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "killed.aedat4"
    code = (
        "import sys, os; from pathlib import Path; import dv_processing as dv; import toy_recordings as t\n"
        f"w = dv.io.MonoCameraWriter({str(path)!r}, t.CONFIG('DAVIS346_1', t.SENSOR))\n"
        "for i in range(200):\n"
        "    w.writeEventPacket(t.NumpyEvents(t.make_events(2000, t.START_US + i * 10_000, 10_000)).packet())\n"
        "import time\n"
        f"while os.path.getsize({str(path)!r}) < 2_500_000: time.sleep(0.01)\n"  # a thread of the writer's compresses
        "os.kill(os.getpid(), 9)"
    )
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": search}, timeout=300)
    assert ended.returncode == -9
    events = events_of(read_all(path))
    assert len(events) > 200_000 and (np.diff(events["timestamp"]) >= 0).all()


def test_frames_of_another_shape_or_depth_are_left_out(tmp_path: Path) -> None:
    """dv-processing writes them all into a stream of 346 x 260."""
    path = tmp_path / "frames.aedat4"
    writer = dv.io.MonoCameraWriter(str(path), CONFIG("DAVIS346_1", SENSOR))
    right = np.zeros(SENSOR[::-1], np.uint8)
    images = [right, right.astype(np.uint16), right[:90, :90].copy(), np.zeros((*right.shape, 3), np.uint8), right]
    for i, image in enumerate(images):
        writer.writeFrame(dv.Frame(START_US + i * 33_333, 5_000, 0, 0, image, dv.FrameSource.SENSOR))
    writer.writeEventPacket(NumpyEvents(make_events(10, START_US, 1000)).packet())
    del writer
    portions = read_all(path)
    frames = [frame for portion in portions for frame in portion.frames]
    assert [frame.start_us for frame in frames] == [START_US, START_US + 4 * 33_333]
    assert sum(portion.refused for portion in portions) == 3


def store(events: np.ndarray) -> object:
    return NumpyEvents(events).store()


def checked(intake: Intake, events: np.ndarray) -> StoredEvents:
    found = intake.next_events(lambda: store(events))
    assert found is not None
    assert found[1].store().size() == len(found[1]) == len(found[0])
    return found[1]


@pytest.mark.parametrize("place", [("x", 346), ("x", 400), ("y", 260), ("x", -1), ("y", -1), ("x", -32768)])
def test_events_beside_the_sensor_are_left_out(place: tuple[str, int]) -> None:
    events, intake = make_events(100, START_US, 1000), Intake()
    events[place[0]][[3, 50]] = place[1]
    assert checked(intake, events).numpy().tobytes() == np.delete(events, [3, 50]).tobytes()
    assert intake.counted() == 2 and intake.counted() == 0


@pytest.mark.parametrize("wild", [0, START_US + 10**12, -5])
def test_one_wild_time_costs_one_event(wild: int) -> None:
    events = make_events(100, START_US, 1000)
    backward = events.copy()
    backward["timestamp"][40] = wild

    class Stored:  # a store's own push_back refuses times that go back; a damaged file's does not
        def numpy(self) -> np.ndarray:
            return backward

    intake = Intake()
    found = intake.next_events(Stored)
    assert found is not None and found[1].numpy().tobytes() == np.delete(backward, 40).tobytes()
    assert intake.counted() == 1


def test_a_packet_from_before_is_left_out() -> None:
    intake = Intake()
    assert len(checked(intake, make_events(100, START_US, 1000))) == 100
    assert len(checked(intake, make_events(50, START_US - 5000, 1000))) == 0
    assert len(checked(intake, make_events(100, START_US + 1000, 1000))) == 100
    assert intake.counted() == 50


def test_a_stream_that_cannot_be_read_is_given_up_and_counted() -> None:
    def fails() -> None:
        raise RuntimeError("somewhere in C++")

    intake = Intake()
    assert intake.next_frame(fails) is None
    assert intake.gave_up("frames") and not intake.gave_up("events")
    assert intake.counted() == 8


def test_many_events_at_once_are_handed_out_in_bounded_portions(tmp_path: Path) -> None:
    """Two million events of one millisecond: neither a portion nor the process grows with them."""
    path = tmp_path / "many.aedat4"
    config = dv.io.MonoCameraWriter.EventOnlyConfig("DAVIS346_1", SENSOR, dv.CompressionType.NONE)
    writer = dv.io.MonoCameraWriter(str(path), config)
    packet = NumpyEvents(make_events(100_000, START_US, 1)).packet()
    for _ in range(20):
        writer.writeEventPacket(packet)
    del writer
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    camera, total = Recording(path, pace=None), 0
    while camera.running():
        portion = camera.read()
        assert portion is not None and portion.events is not None
        assert len(portion.events) <= 700_000
        total += len(portion.events)
    assert total == 2_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
