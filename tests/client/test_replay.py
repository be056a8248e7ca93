"""Segments read again, in a process of their own: the pictures that were shown live, and all that was recorded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dv_processing")

from capture_process import capturing, eventually
from recorded import START_US, expected, portions, read_independently, same, stream_of

from client.recorder import Recorder
from client.replay import Content, Streams, content, pairs, streams
from client.ring import SHARED_MEMORY, Arrived
from client.segment_files import PlainSegment
from mcoe_model.data.events import Pair, Pairing
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import DataInvalid, McoeError

GEOMETRY = Geometry(x=40, y=20, side=200, rotation=7.0, eye="left")
ALL_US = 1 << 62


def recorded(folder: Path, seconds: float, cut_every: int) -> list[bytes]:
    """The segments of a recording, cut after so many portions."""
    found: list[PlainSegment] = []
    recorder = Recorder(folder, "s", found.append)
    for number, portion in enumerate(portions(seconds), start=1):
        recorder.add(portion)
        if number % cut_every == 0:
            recorder.cut()
    recorder.cut(last=True)
    return [segment.path.read_bytes() for segment in found]


def shown_live(seconds: float) -> list[Pair]:
    """The pictures as capture makes them, portion by portion."""
    pairing, found = Pairing(GEOMETRY), []
    for portion in portions(seconds):
        for frame in portion.frames:
            found += pairing.add_frame(frame)
        assert portion.events is not None
        found += pairing.add_events(portion.events.numpy())
    return found


def same_pair(left: Pair, right: Pair) -> bool:
    pictures = np.array_equal(left.frame, right.frame) and np.array_equal(left.event, right.event)
    return pictures and (left.end_us, left.fresh) == (right.end_us, right.fresh)


def replayed(segments: list[bytes], from_us: int = 0, to_us: int = ALL_US) -> list[Pair]:
    return asyncio.run(pairs(segments, GEOMETRY, from_us, to_us))


def test_pictures_of_the_segments_are_those_that_were_shown(tmp_path: Path) -> None:
    live = shown_live(2.0)
    found = replayed(recorded(tmp_path, 2.0, cut_every=37))
    assert len(live) <= len(found) <= len(live) + 1, "offline the last window is closed too"
    assert all(same_pair(a, b) for a, b in zip(live, found, strict=False)) and len(live) > 55
    assert [pair.number for pair in found] == list(range(len(found)))


def test_only_the_pictures_that_were_asked_for_come(tmp_path: Path) -> None:
    segments, live = recorded(tmp_path, 2.0, cut_every=50), shown_live(2.0)
    found = replayed(segments, START_US + 500_000, START_US + 1_000_000)
    wanted = [pair for pair in live if START_US + 500_000 <= pair.end_us <= START_US + 1_000_000]
    assert len(wanted) == 15 and all(same_pair(a, b) for a, b in zip(wanted, found, strict=True))


def test_who_asked_for_pictures_may_let_it_stand_still(tmp_path: Path) -> None:
    segments, went_on = recorded(tmp_path, 2.0, cut_every=50), list[int]()

    async def scene() -> list[Pair]:
        may = asyncio.Event()

        async def wait() -> None:
            await may.wait()
            went_on.append(1)

        reading = asyncio.create_task(pairs(segments, GEOMETRY, 0, ALL_US, wait))
        await asyncio.sleep(1.0)
        assert not reading.done()
        may.set()
        return await reading

    found, live = asyncio.run(scene()), shown_live(2.0)
    assert len(went_on) >= len(found) >= len(live) > 55
    assert all(same_pair(a, b) for a, b in zip(live, found, strict=False)), "offline the last window is closed too"


def test_all_that_was_recorded_comes_back_in_pieces(tmp_path: Path) -> None:
    segments = recorded(tmp_path, 1.0, cut_every=20)

    async def everything(from_us: int = 0, to_us: int = ALL_US) -> list[Streams]:
        return [piece async for piece in streams(segments, from_us, to_us)]

    assert same(stream_of(asyncio.run(everything())), expected(portions(1.0)))
    part = stream_of(asyncio.run(everything(START_US + 100_000, START_US + 200_000)))
    assert len(part.imu) == 11 and len(part.frames) == 3 and part.triggers == []
    assert part.events["timestamp"][0] >= START_US + 100_000 and part.events["timestamp"][-1] <= START_US + 200_000


def test_it_says_what_segments_hold(tmp_path: Path) -> None:
    segments = recorded(tmp_path, 1.0, cut_every=20)
    ends = max(portion.frames[-1].end_us for portion in portions(1.0) if portion.frames)
    last_event = expected(portions(1.0)).events["timestamp"][-1]
    found = asyncio.run(content(segments))
    assert found == Content(2_000, 31, 100, 2, 0, START_US, max(ends, int(last_event)))
    assert asyncio.run(content([])) == Content(0, 0, 0, 0, 0, None, None)


def test_a_damaged_segment_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (whole,) = recorded(tmp_path, 0.5, cut_every=1000)
    before = set(SHARED_MEMORY.iterdir())
    half = whole[: len(whole) // 2]
    for segments in ([b"junk"], [b""], [half], [whole[:100]], [b"\0" * 1000], [whole, half], [whole, b""]):
        with pytest.raises(DataInvalid, match="a segment of this recording"):
            replayed(segments)
    new = [path for path in set(SHARED_MEMORY.iterdir()) - before if path.name.startswith("tmp")]
    eventually(lambda: not any(path.exists() for path in new))  # another process of the tests may be at it as well
    assert len(replayed([whole])) > 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_was_ended_says_nothing_of_the_segments_but_one_that_aborts_does(
    tmp_path: Path, number: int
) -> None:
    """A preview or a lesson may be killed, as where memory is full. It aborts where dv-processing cannot read on."""
    segments = recorded(tmp_path, 0.5, cut_every=10)

    def ended() -> Iterator[bytes]:
        yield segments[0]
        [reads] = reading()
        os.kill(reads, number)
        yield from segments[1:]

    for ask in (lambda given: pairs(given, GEOMETRY, 0, ALL_US), content):
        damaged = number == signal.SIGABRT
        with pytest.raises(McoeError, match="damaged" if damaged else "try again") as caught:
            asyncio.run(ask(ended()))
        assert isinstance(caught.value, DataInvalid) is damaged and reading() == []
    assert len(replayed(segments)) > 10


def reading() -> list[int]:
    """The processes of this one that read segments."""
    found = []
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        with suppress(OSError):  # it has ended since
            if b"replay_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def test_no_change_to_a_segment_brings_this_process_down_or_makes_pictures_that_cannot_be(tmp_path: Path) -> None:
    """Bytes anywhere are changed. What cannot be read is refused; what can be has the shape of pictures."""
    (whole,) = recorded(tmp_path, 0.3, cut_every=1000)
    random = np.random.default_rng(7)

    def changed() -> bytes:
        content = bytearray(whole)
        # Frames are most of a file, and a changed picture is a picture: most changes are in what describes them.
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(0, len(content) if random.random() < 0.5 else 4_000))
            content[at] = int(random.integers(0, 256))
        return bytes(content)

    async def attempt(segment: bytes) -> int:
        try:
            found = await asyncio.wait_for(pairs([segment], GEOMETRY, 0, ALL_US), 300)
        except DataInvalid:
            return 0
        assert all(pair.frame.shape == pair.event.shape == (90, 90) for pair in found)
        return 1

    async def attempts() -> list[int]:
        return [result for _ in range(6) for result in await asyncio.gather(*(attempt(changed()) for _ in range(2)))]

    outcomes = asyncio.run(attempts())
    assert 0 in outcomes and len(outcomes) == 12


def test_what_cannot_be_decrypted_is_said_as_such_and_no_process_is_left(tmp_path: Path) -> None:
    segments = recorded(tmp_path, 0.5, cut_every=10)

    def torn() -> Iterator[bytes]:
        yield segments[0]
        raise DataInvalid("the sealed file was changed")

    with pytest.raises(DataInvalid, match="sealed file was changed"):
        asyncio.run(pairs(torn(), GEOMETRY, 0, ALL_US))

    async def stopped_early() -> int:
        async with aclosing(streams(segments)) as pieces:
            async for piece in pieces:
                await asyncio.sleep(0.5)  # what it says meanwhile fills its pipe, and nobody takes it
                return len(piece.events)
        return 0

    assert asyncio.run(asyncio.wait_for(stopped_early(), 60)) > 0
    eventually(lambda: reading() == [])  # a process that was killed takes a moment to end


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user; else every test shows it")
def test_a_user_who_is_not_root_can_read_segments(tmp_path: Path) -> None:
    """A process that leaves no core dump owns less of its /proc; the file in memory must stay readable to it."""
    (whole,) = recorded(tmp_path, 0.2, cut_every=1000)
    code = """if True:
        import os, sys
        import dv_processing
        from client.cameras.recording import Recording
        from client.child_process import no_core_dump
        from client.replay_process import named
        os.setgid(65534), os.setuid(65534)
        no_core_dump()
        descriptor = os.memfd_create("segment")
        os.write(descriptor, sys.stdin.buffer.read())
        with named(descriptor) as path:
            recording = Recording(path, pace=None)
        print(sum(len(portion.events) for portion in iter(recording.read, None) if portion.events is not None))
    """
    found = subprocess.run([sys.executable, "-c", code], input=whole, capture_output=True)
    assert found.stdout == b"400\n", found.stderr


def test_what_recognition_saw_live_is_what_the_recording_gives(tmp_path: Path) -> None:
    """One process shows and records the simulated eye; another decodes what it recorded."""
    with capturing("simulated:3", tmp_path) as capture:
        capture.wait_for("clock")
        ring = capture.ring()
        live: dict[int, Arrived] = {}
        capture.say("record", session="s")
        number, missed = -1, 0
        while len(live) < 60:
            found_now, skipped = ring.since(number)
            missed += skipped if live else 0
            for pair in found_now:
                live[pair.end_us], number = pair, pair.number
        capture.say("stop")
        capture.wait_for("stopped")
        (segment,) = capture.all("segment")
        found = asyncio.run(pairs([Path(segment["path"]).read_bytes()], Geometry(), 0, ALL_US))
        assert read_independently([Path(segment["path"])]).frames
        assert capture.end() == 0
    both = [(live[pair.end_us], pair) for pair in found if pair.end_us in live]
    # The first window offline begins with the first frame that was recorded, and live may have been ahead by one.
    assert len(both) >= min(len(found), len(live)) // 2
    inside = [pair for pair in found if min(live) < pair.end_us <= max(live)]
    assert len(both) >= len(inside) - 1 - missed  # a reader that was set aside missed what the ring no longer held
    assert all(same_pair(shown, again) for shown, again in both)


def test_a_recording_that_is_played_shows_what_its_segments_hold_and_ends(tmp_path: Path) -> None:
    """From a file through the camera's process, as it was recorded, and the same file through the decoding one."""
    folder = tmp_path / "played"
    folder.mkdir()
    (whole,) = recorded(folder, 1.5, cut_every=1000)
    (file,) = folder.iterdir()
    offline = asyncio.run(pairs([whole], Geometry(), 0, ALL_US))
    with capturing(f"recording:{file}", tmp_path) as capture:
        capture.wait_for("ready")
        capture.wait_for("ended")
        shown, missed = capture.ring().since(-1)
        assert missed == 0 and capture.all("lost") == [] and capture.all("refused") == []
        capture.say("record", session="s")
        assert "plug it in" in capture.wait_for("refused")["why"]
        assert capture.end() == 0
    assert len(shown) == len(offline) > 40
    assert all(same_pair(one, other) for one, other in zip(shown, offline, strict=True))
