"""What capture makes of what a camera does: unplugged, still, out of step, signalling, and a clock that is set."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dv_processing")

from recorded import ArrayEvents, events_between, read_independently

from client.cameras.source import TRIGGER, CameraInfo, Portion, Stream
from client.capture import Capture
from client.clock_map import CameraClock, Offset, WallClock
from client.remembered import Remembered
from client.ring import PairRing, unlink_rings
from mcoe_model.data.events import Frame
from mcoe_model.data.geometry import Geometry

PREFIX = f"mcoe-test-{os.getpid()}-stub-"


class StubCamera:
    """USB hardware that does what a test says, behind the protocol that every camera has."""

    ended = False
    #: What comes of a camera that says that it runs and gives nothing of use.
    gives_silently: Portion | None = None

    def __init__(self, *, frames_late_us: int = 0, still_after: int | None = None) -> None:
        streams: frozenset[Stream] = frozenset({"events", "frames", "triggers"})
        self.info = CameraInfo("DAVIS346", "00000042", streams, usb3=True)
        self.plugged, self.silent, self.closed, self.reads = True, False, False, 0
        self.signals: list[tuple[int, int]] = []
        self._late_us, self._still_after = frames_late_us, still_after
        self._told_us = time.time_ns() // 1000
        self._framed_us = self._told_us

    def read(self) -> Portion | None:
        now = time.time_ns() // 1000
        if not self.plugged or now - self._told_us < 5_000:
            return None
        if self.silent:
            return self.gives_silently
        self.reads += 1
        frames: tuple[Frame, ...] = ()
        if now - self._framed_us > 33_000:
            self._framed_us = now
            image = np.full((260, 346), self.reads % 200, np.uint8)
            frames = (Frame(now - 5_000 - self._late_us, 5_000, image),)
        if self._still_after is not None and self.reads > self._still_after:
            return Portion(frames=frames) if frames else None
        events = ArrayEvents(events_between(self._told_us, now, 20))
        self._told_us = now
        triggers = np.array(self.signals, TRIGGER) if self.signals else None
        self.signals = []
        return Portion(events, frames, triggers=triggers)

    def moves_again(self) -> None:
        """The eye was still for the machine only: what it did comes late."""
        self._still_after = None

    def running(self) -> bool:
        return self.plugged

    def close(self) -> None:
        self.closed = True


class Running:
    """A capture in this process, whose steps a test makes."""

    def __init__(self, folder: Path, wall: WallClock | None = None, device: str = "davis346") -> None:
        self.heard: list[dict[str, Any]] = []
        self.capture = Capture(device, PREFIX, folder, Geometry(), self._say, wall)

    def until(self, holds: Callable[[], object], **command: object) -> None:
        """Step until something holds. ``command`` is given first."""
        until, asked = time.monotonic() + 90, command or None
        while not holds():
            assert time.monotonic() < until, f"it does not come; {self.heard[-3:]}"
            if not self.capture.step(asked):
                time.sleep(0.001)
            asked = None

    def all(self, what: str) -> list[dict[str, Any]]:
        return [event for event in self.heard if event["is"] == what]

    def _say(self, event: dict[str, Any]) -> None:
        self.heard.append(json.loads(json.dumps(event, allow_nan=False)))


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StubCamera]]:
    """The camera that is plugged in, if any, and those before it."""
    plugged: list[StubCamera] = []
    monkeypatch.setattr("client.capture.open_source", lambda text: plugged[-1])
    monkeypatch.setattr("client.capture.find_again", lambda text, lost: plugged[-1] if plugged[-1].plugged else None)
    yield plugged
    unlink_rings(PREFIX)


def test_a_camera_that_is_unplugged_makes_a_partial_session_and_is_found_again(
    tmp_path: Path, cameras: list[StubCamera]
) -> None:
    cameras.append(StubCamera())
    running = Running(tmp_path)
    running.until(lambda: running.all("clock"))
    running.until(lambda: running.all("started"), do="record", session="s")
    rates = len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates)
    (ready,) = running.all("ready")
    assert "00000042" not in json.dumps(running.heard)
    ring = PairRing.attach(ready["rings"]["pairs"])
    before = ring.newest()
    assert before is not None
    cameras[0].plugged = False
    running.until(lambda: running.all("lost"))
    (segment,) = running.all("segment")
    (stopped,) = running.all("stopped")
    assert stopped["partial"] and stopped["why"] == "camera lost" and cameras[0].closed
    assert len(read_independently([Path(segment["path"])]).events) == segment["events"] > 0
    running.until(lambda: running.all("refused"), do="save_last", session="t")
    assert "plug it in" in running.all("refused")[0]["why"]
    cameras.append(StubCamera())
    running.until(lambda: running.all("found"))
    running.until(lambda: ring.newest().number > before.number + 5)  # type: ignore[union-attr]
    numbers = [pair.number for pair in ring.since(-1)[0]]
    gaps = [number for number, following in itertools.pairwise(numbers) if following != number + 1]
    assert len(gaps) == 1, "what comes after must not look as if it continued what came before"
    assert len(running.all("ready")) == len(running.all("lost")) == 1
    running.capture.close()


@pytest.mark.parametrize(
    ("device", "gives"), [("davis346", None), ("davis346", Portion(refused=1)), ("network:127.0.0.1:7000", None)]
)
def test_a_camera_that_says_that_it_runs_and_gives_nothing_is_lost_and_looked_for(
    tmp_path: Path, cameras: list[StubCamera], monkeypatch: pytest.MonkeyPatch, device: str, gives: Portion | None
) -> None:
    monkeypatch.setattr("client.capture._TICK_NS", 50_000_000)
    cameras.append(StubCamera())
    running = Running(tmp_path, device=device)
    running.until(lambda: running.all("clock"))
    running.until(lambda: running.all("started"), do="record", session="s")
    rates = len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates + 8)
    assert not running.all("lost"), "it gives something all the time"
    cameras[0].gives_silently, cameras[0].silent = gives, True
    rates = len(running.all("rate"))
    running.until(lambda: running.all("lost"))
    assert cameras[0].closed and cameras[0].running() and len(running.all("rate")) - rates <= 6
    [lost], [stopped] = running.all("lost"), running.all("stopped")
    assert lost["key"] == "camera.silent" and "unplug it and plug it in again" in lost["why"]
    assert stopped["partial"] and stopped["why"] == "camera lost"
    running.until(lambda: running.all("refused"), do="record", session="t")

    # It can be opened again, and gives as little: the wearer is told once, and not that it was found.
    for _ in range(2):
        cameras.append(StubCamera())
        cameras[-1].silent = True
        running.until(lambda: cameras[-1].closed)
    assert running.all("lost") == [lost] and not running.all("found")
    cameras.append(StubCamera())
    running.until(lambda: running.all("found"))
    assert running.heard.index(running.all("found")[0]) > running.heard.index(lost)
    running.until(lambda: running.all("started")[1:], do="record", session="u")
    running.capture.close()
    assert not running.all("stopped")[-1]["partial"]


def test_a_recording_that_is_played_may_be_silent(
    tmp_path: Path, cameras: list[StubCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.capture._TICK_NS", 20_000_000)
    cameras.append(StubCamera())
    running = Running(tmp_path, device="recording:/a/b.aedat4")
    running.until(lambda: running.all("clock"))
    cameras[0].silent = True
    rates = len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates + 12)
    assert not running.all("lost") and not cameras[0].closed
    running.capture.close()


def test_what_a_silent_recording_has_given_is_finished_on_the_disk_before_more_comes(
    tmp_path: Path, cameras: list[StubCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer holds back the last samples and signals, and a process that is killed would lose them."""
    monkeypatch.setattr("client.capture._TICK_NS", 20_000_000)
    monkeypatch.setattr("client.recordings._QUIET_NS", 1_000_000_000)
    cameras.append(StubCamera())
    running = Running(tmp_path, device="recording:/a/b.aedat4")
    running.until(lambda: running.all("clock"))
    running.until(lambda: running.all("started"), do="record", session="s")
    cameras[0].signals = [(1_000, 1), (2_000, 2)]
    running.until(lambda: running.all("trigger"))
    cameras[0].silent = True
    running.until(lambda: sum(segment["triggers"] for segment in running.all("segment")) == 2)
    assert not running.all("stopped")
    read = read_independently([Path(segment["path"]) for segment in running.all("segment")])
    assert read.triggers == [(1_000, 1), (2_000, 2)] and len(read.events)
    segments, rates = len(running.all("segment")), len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates + 10)
    assert len(running.all("segment")) == segments, "none is empty"
    running.capture.close()


def test_time_in_which_the_process_was_set_aside_is_no_silence_of_the_camera(
    tmp_path: Path, cameras: list[StubCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras.append(StubCamera())
    running = Running(tmp_path)
    running.until(lambda: running.all("rate"))
    now_ns, cameras[0].silent = time.monotonic_ns(), True
    monkeypatch.setattr("client.capture.time.monotonic_ns", lambda: now_ns + 3600 * 10**9)
    for _ in range(10):
        running.capture.step(None)
    assert not running.all("lost")
    running.capture.close()


def test_a_clock_that_is_set_begins_another_segment_and_is_said(tmp_path: Path, cameras: list[StubCamera]) -> None:
    cameras.append(StubCamera())
    moved = [0]
    running = Running(tmp_path, WallClock(utc_ns=lambda: time.time_ns() + moved[0]))
    running.until(lambda: running.all("clock"))
    (before,) = running.all("clock")
    running.until(lambda: running.all("started"), do="record", session="s")
    rates = len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates)
    moved[0] = 3600 * 10**9
    running.until(lambda: any(event["stepped"] for event in running.all("clock")))
    after = running.all("clock")[-1]
    assert running.heard[running.heard.index(after) - 1]["is"] == "segment"
    elapsed_us = (after["monotonic_ns"] - before["monotonic_ns"]) / 1000
    assert after["utc_us"] - before["utc_us"] - elapsed_us == pytest.approx(3600e6, abs=1e6)
    assert after["camera_us"] - before["camera_us"] == pytest.approx(elapsed_us, abs=1e6)
    rates = len(running.all("rate"))
    running.until(lambda: len(running.all("rate")) > rates + 1)
    assert sum(event["stepped"] for event in running.all("clock")) == 1
    running.until(lambda: running.all("stopped"), do="stop")
    assert not running.all("stopped")[0]["partial"] and len(running.all("segment")) >= 2
    running.capture.close()


@pytest.mark.parametrize("late_us", [0, 1_000_000])
def test_frames_that_are_not_of_the_time_of_the_events_flag_the_session(
    tmp_path: Path, cameras: list[StubCamera], late_us: int
) -> None:
    cameras.append(StubCamera(frames_late_us=late_us))
    running = Running(tmp_path)
    running.until(lambda: running.all("clock"))
    running.until(lambda: running.all("started"), do="record", session="s")
    running.until(lambda: len(running.all("rate")) > 5)
    running.until(lambda: running.all("stopped"), do="stop")
    assert running.all("stopped")[0]["in_sync"] is (late_us == 0)
    assert running.all("rate")[-1]["skew_us"] == pytest.approx(late_us, abs=100_000)
    running.capture.close()


def test_a_still_eye_has_pictures_all_the_same(tmp_path: Path, cameras: list[StubCamera]) -> None:
    cameras.append(StubCamera(still_after=60))
    running = Running(tmp_path)
    running.until(lambda: cameras[0].reads > 80)
    ring = PairRing.attach(running.all("ready")[0]["rings"]["pairs"])
    before = ring.newest()
    assert before is not None
    running.until(lambda: ring.newest().number >= before.number + 10)  # type: ignore[union-attr]
    pairs = ring.since(-1)[0][-6:]
    assert all((pair.event == 128).all() for pair in pairs)
    assert (np.diff([pair.end_us for pair in pairs]) > 0).all() and any(pair.fresh for pair in pairs)
    preview = PairRing.attach(running.all("ready")[0]["rings"]["preview"]).newest()
    assert preview is not None and (preview.event == 128).all()
    running.until(lambda: running.all("rate")[-1]["events_per_s"] == 0)
    assert running.all("rate")[-1]["late_events"] == 0
    cameras[0].moves_again()
    running.until(lambda: running.all("rate")[-1]["late_events"] > 0)
    running.capture.close()


def test_signals_at_the_cameras_input_are_said_and_recorded(tmp_path: Path, cameras: list[StubCamera]) -> None:
    cameras.append(StubCamera())
    running = Running(tmp_path)
    running.until(lambda: running.all("clock"))
    running.until(lambda: running.all("started"), do="record", session="s")
    cameras[0].signals = [(1_000, 1), (2_000, 2), (3_000, 6), (4_000, 3)]
    running.until(lambda: running.all("trigger"))
    assert [event["camera_us"] for event in running.all("trigger")] == [1_000, 2_000, 4_000]
    running.until(lambda: running.all("stopped"), do="stop")
    (segment,) = running.all("segment")
    assert segment["triggers"] == 4
    assert read_independently([Path(segment["path"])]).triggers == [(1_000, 1), (2_000, 2), (3_000, 6), (4_000, 3)]
    running.capture.close()


def test_memory_of_the_last_seconds_is_bounded_in_time_and_bytes() -> None:
    remembered = Remembered(span_ns=10, limit=1_000_000)
    for at in range(100):
        remembered.add(Portion(ArrayEvents(events_between(1_000 * at, 1_000 * at + 1_000, 1_000))), at)
        assert remembered.bytes <= 1_000_000 and len(remembered.since(0)) <= 11
    assert len(remembered.since(95_500)) == 5 and remembered.seconds(99) == pytest.approx(10e-9)
    large = Portion(frames=tuple(Frame(0, 0, np.zeros((260, 346), np.uint8)) for _ in range(5)))
    remembered.add(Portion(refused=3), 99)
    for at in range(100, 110):
        remembered.add(large, at)
        assert remembered.bytes <= 1_000_000
    assert len(remembered.since(0)) == 2
    remembered.forget()
    assert remembered.bytes == 0 and remembered.since(0) == [] and remembered.seconds(200) == 0
    remembered.add(Portion(ArrayEvents(events_between(0, 1_000, 100_000))), 200)
    assert remembered.since(0) == [] and remembered.bytes == 0


def test_the_cameras_clock_is_followed_although_it_drifts_and_portions_are_late() -> None:
    """A camera's clock that is slow by 100 ppm loses 180 ms in half an hour."""
    offset, random = Offset(), np.random.default_rng(0)
    worst = 0
    for second in range(1800):
        for part in range(10):
            now_us = 1_000_000 * second + 100_000 * part
            camera_us = round(now_us * (1 - 1e-4))
            offset.observe(camera_us, 1000 * (now_us + int(random.exponential(20_000))))
            assert offset.us is not None
            if second > 20:
                worst = max(worst, abs(now_us - offset.us - camera_us))
    assert worst < 10_000
    assert CameraClock().camera_us(0) is None and CameraClock().skew_us is None


def test_a_clock_that_is_slewed_is_not_set() -> None:
    moved = [0]
    wall = WallClock(utc_ns=lambda: time.time_ns() + moved[0])
    for _ in range(100):
        moved[0] += 500_000  # half a millisecond each second is the most that adjtime does
        assert not wall.stepped()
    moved[0] -= 10**9
    assert wall.stepped() and not wall.stepped()
