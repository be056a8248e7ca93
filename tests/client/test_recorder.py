"""Recordings: what went in is in the segments, for an independent reader, also after the process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dv_processing")

from recorded import START_US, ArrayEvents, events_between, expected, portions, read_independently, same

from client.cameras.source import IMU, TRIGGER, Portion
from client.recorder import Recorder
from client.segment_files import SEGMENT_US, PlainSegment, left_over
from mcoe_model.data.events import Frame
from mcoe_model.errors import OutputExists, SettingsError

ENDLESS = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from recorded import stream
from client.recorder import Recorder

recorder = Recorder(Path(sys.argv[1]), "lost", lambda segment: print(segment.number, flush=True))
for portion in stream():
    recorder.add(portion)
"""


def recorded(folder: Path, given: list[Portion], session: str = "s1") -> list[PlainSegment]:
    """The segments of a recording of all these portions."""
    found: list[PlainSegment] = []
    recorder = Recorder(folder, session, found.append)
    for portion in given:
        recorder.add(portion)
    recorder.cut(last=True)
    assert recorder.refused == 0
    return found


def test_segments_one_after_another_are_what_was_given_and_what_one_long_file_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = portions(3.0)
    monkeypatch.setattr("client.recorder.SEGMENT_US", 1_000_000)
    segments = recorded(tmp_path, given)
    assert [segment.number for segment in segments] == [0, 1, 2]
    assert [segment.last for segment in segments] == [False, False, True]
    read = read_independently(segment.path for segment in segments)
    assert same(read, expected(given))
    assert len(read.triggers) == 6 and len(read.imu) == 300 and len(read.frames) == 91
    monkeypatch.setattr("client.recorder.SEGMENT_US", SEGMENT_US)
    (whole,) = recorded(tmp_path, given, session="whole")
    assert same(read, read_independently([whole.path]))


def test_a_segment_says_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.recorder.SEGMENT_US", 1_000_000)
    for segment in recorded(tmp_path, portions(2.5)):
        read = read_independently([segment.path])
        counts = (len(read.events), len(read.frames), len(read.imu), len(read.triggers))
        assert counts == (segment.events, segment.frames, segment.imu, segment.triggers)
        starts = [read.events["timestamp"][0], read.frames[0].start_us, read.imu[0][0]]
        assert segment.starts_us == min(starts)
        assert segment.ends_us == max(read.events["timestamp"][-1], read.frames[-1].end_us, read.imu[-1][0])
        assert segment.ends_us - segment.starts_us <= 1_000_000 + 40_000
        assert segment.to_record()["path"] == str(segment.path)


def test_a_segment_may_be_cut_at_any_time_and_none_is_empty(tmp_path: Path) -> None:
    given = portions(0.5)
    found: list[PlainSegment] = []
    recorder = Recorder(tmp_path, "s1", found.append)
    recorder.cut()
    for number, portion in enumerate(given):
        recorder.add(portion)
        recorder.add(Portion())
        if number in (7, 8):
            recorder.cut()
            recorder.cut()
    recorder.cut(last=True)
    assert [segment.number for segment in found] == [0, 1, 2]
    assert same(read_independently(segment.path for segment in found), expected(given))


def test_slices_of_a_store_are_written_as_slices(tmp_path: Path) -> None:
    """dv-processing's own `writeEvents` writes all of the store that a slice was cut from, each time."""
    import dv_processing as dv

    store = dv.EventStore()
    events = events_between(START_US, START_US + 100_000, 10_000)
    for t, x, y, polarity in events.tolist():
        store.push_back(t, x, y, bool(polarity))

    class Slice(ArrayEvents):
        def packet(self) -> object:
            first, last = int(self.array["timestamp"][0]), int(self.array["timestamp"][-1])
            return store.sliceTime(first, last + 1).toPacket()

    edges = range(START_US, START_US + 100_000, 10_000)
    parts = [events[(events["timestamp"] >= t) & (events["timestamp"] < t + 10_000)] for t in edges]
    (segment,) = recorded(tmp_path, [Portion(Slice(part)) for part in parts])
    np.testing.assert_array_equal(read_independently([segment.path]).events, events)


def test_what_is_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    found: list[PlainSegment] = []
    recorder = Recorder(tmp_path, "s1", found.append)
    good = portions(0.1)
    for portion in good:
        recorder.add(portion)
    later = START_US + 200_000

    def refuses(portion: Portion, count: int) -> None:
        before = recorder.refused
        recorder.add(portion)
        assert recorder.refused == before + count

    def events(**changes: int) -> Portion:
        made = events_between(later, later + 1_000, 10)
        for name, value in changes.items():
            made[name][5] = value
        return Portion(ArrayEvents(made))

    refuses(events(x=346), 10)
    refuses(events(x=-1), 10)
    refuses(events(y=260), 10)
    refuses(events(timestamp=later - 1), 10)
    refuses(Portion(ArrayEvents(events_between(START_US, START_US + 10, 10))), 10)
    image = np.zeros((260, 346), np.uint8)
    for wrong in (image[:90, :90], image.T, image.astype(np.uint16), image.astype(np.float32), np.stack([image] * 3)):
        refuses(Portion(frames=(Frame(later, 5_000, wrong),)), 1)
    refuses(Portion(frames=(Frame(START_US, 5_000, image),)), 1)
    refuses(Portion(frames=(Frame(later, 5_000, image), Frame(later - 1, 5_000, image))), 1)
    refuses(Portion(imu=np.zeros(3, IMU)), 3)
    refuses(Portion(triggers=np.zeros(2, TRIGGER)), 2)
    refuses(Portion(), 0)
    recorder.cut(last=True)
    kept = replace(good[-1], frames=(Frame(later, 5_000, image),), events=None, imu=None, triggers=None)
    assert same(read_independently(segment.path for segment in found), expected([*good, kept]))


def test_no_recording_is_overwritten_and_no_name_leads_elsewhere(tmp_path: Path) -> None:
    (segment,) = recorded(tmp_path, portions(0.1))
    before = segment.path.read_bytes()
    with pytest.raises(OutputExists, match="recorded already"):
        recorded(tmp_path, portions(0.1))
    assert segment.path.read_bytes() == before
    for name in ("../s1", "", "a/b", "s 1", "a-b", "a.b", 7, None):
        with pytest.raises(SettingsError):
            Recorder(tmp_path, name, print)  # type: ignore[arg-type]


def test_only_the_user_may_read_a_segment_and_it_names_no_camera(tmp_path: Path) -> None:
    (segment,) = recorded(tmp_path, portions(0.1))
    assert segment.path.stat().st_mode & 0o777 == 0o600
    content = segment.path.read_bytes()
    assert b"DAVIS346" in content and b"DAVIS346_" not in content


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_dies_loses_at_most_the_open_segment(tmp_path: Path, deadly: signal.Signals) -> None:
    script = ENDLESS.format(tests=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for number in range(2):
            assert process.stdout.readline() == f"{number}\n"
        process.send_signal(deadly)
        process.wait()
    assert process.returncode == -deadly
    files = left_over(tmp_path)
    assert [number for _, number, _, _ in files] == list(range(len(files)))
    finished = [path for _, _, whole, path in files if whole]
    assert len(finished) >= 2 and len(files) - len(finished) <= 1
    read = read_independently(finished)
    assert same(read, expected(portions(10 * len(finished))))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_memory_without_room_ends_the_process_and_leaves_the_segments_before(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    try:
        script = ENDLESS.format(tests=str(Path(__file__).parent))
        ended = subprocess.run([sys.executable, "-c", script, str(small)], capture_output=True, text=True, timeout=300)
        assert ended.returncode == -signal.SIGABRT
        finished = [path for _, _, whole, path in left_over(small) if whole]
        assert [f"{number}" for number in range(len(finished))] == ended.stdout.split()
        assert same(read_independently(finished), expected(portions(10 * len(finished))))
        assert finished
    finally:
        subprocess.run(["umount", str(small)], check=True)
