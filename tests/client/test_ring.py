"""Rings of pictures: what was put is read, in other processes too, and never half of one pair and half of another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.ring import PAIR_SHAPE, SENSOR_SHAPE, SHARED_MEMORY, PairRing, unlink_rings
from mcoe_model.data.events import Pair
from mcoe_model.errors import DataInvalid, DataMissing, OutputExists

NAME = f"mcoe-test-{os.getpid()}-ring"

WRITER = """
import sys, time
import numpy as np
from client.ring import PairRing
from mcoe_model.data.events import Pair
ring = PairRing.create(sys.argv[1], slots=2)
print("ready", flush=True)
number = 0
while True:
    value = np.full(ring.shape, number % 251, np.uint8)
    ring.put(Pair(number, number, value, value, True))
    number += 1
"""


def pair(number: int, shape: tuple[int, int] = PAIR_SHAPE) -> Pair:
    frame = np.random.default_rng(number).integers(0, 255, shape, np.uint8)
    return Pair(number, 33_333 * number, frame, 255 - frame, number % 3 > 0)


@pytest.fixture(autouse=True)
def no_rings_left() -> Iterator[None]:
    yield
    unlink_rings(NAME)


@pytest.mark.parametrize("shape", [PAIR_SHAPE, SENSOR_SHAPE, (3, 5)])
def test_what_was_put_is_read(shape: tuple[int, int]) -> None:
    ring = PairRing.create(NAME, slots=4, shape=shape)
    reader = PairRing.attach(NAME)
    assert reader.shape == shape and reader.newest() is None and reader.since(-1) == ([], 0)
    before = time.monotonic_ns()
    for number in range(3):
        ring.put(pair(number, shape))
    found, skipped = reader.since(-1)
    assert [one.number for one in found] == [0, 1, 2] and skipped == 0
    for one in found:
        expected = pair(one.number, shape)
        assert (one.end_us, one.fresh) == (expected.end_us, expected.fresh)
        np.testing.assert_array_equal(one.frame, expected.frame)
        np.testing.assert_array_equal(one.event, expected.event)
        assert before <= one.arrived_ns <= time.monotonic_ns()
    newest = reader.newest()
    assert newest is not None and newest.number == 2


def test_a_reader_that_is_slow_hears_how_much_it_missed() -> None:
    ring = PairRing.create(NAME, slots=4)
    for number in range(10):
        ring.put(pair(number))
    found, skipped = PairRing.attach(NAME).since(2)
    assert [one.number for one in found] == [6, 7, 8, 9] and skipped == 3


def test_a_number_that_was_left_out_counts_as_missed() -> None:
    ring = PairRing.create(NAME, slots=8)
    for number in (0, 1, 3, 4):
        ring.put(pair(number))
    found, skipped = ring.since(0)
    assert [one.number for one in found] == [1, 3, 4] and skipped == 1


def test_a_ring_is_this_users_alone_and_its_name_is_taken_once() -> None:
    PairRing.create(NAME)
    assert (SHARED_MEMORY / NAME).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputExists):
        PairRing.create(NAME)


def test_what_is_no_ring_is_refused() -> None:
    with pytest.raises(DataMissing):
        PairRing.attach(NAME)
    for content in (b"", b"short", bytes(4096)):
        (SHARED_MEMORY / NAME).write_bytes(content)
        with pytest.raises(DataInvalid):
            PairRing.attach(NAME)


def test_a_slot_that_is_torn_or_changed_is_passed_over() -> None:
    ring = PairRing.create(NAME, slots=4)
    for number in range(3):
        ring.put(pair(number))
    path = SHARED_MEMORY / NAME
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4 * 2 + 5_000)  # within the slot of number 1 or 2
        file.write(b"\xff\x00\xff\x00")
    found, skipped = PairRing.attach(NAME).since(-1)
    assert len(found) == 2 and skipped == 1


def test_a_writer_in_another_process_is_never_seen_in_the_middle_and_may_be_killed() -> None:
    """The writer laps its two slots thousands of times a second; a pair is whole or it is not seen."""
    with subprocess.Popen([sys.executable, "-c", WRITER, NAME], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        ring = PairRing.attach(NAME)
        seen: set[int] = set()
        until = time.monotonic() + 180
        while len(seen) < 300 and time.monotonic() < until:
            newest = ring.newest()
            if newest is None:
                continue
            seen.add(newest.number)
            assert newest.end_us == newest.number
            assert set(np.unique(newest.frame)) == set(np.unique(newest.event)) == {newest.number % 251}
        assert len(seen) >= 300
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.returncode == -signal.SIGKILL
        last = ring.newest()
        assert last is not None and last.number >= max(seen)
        # The next writer makes a ring of its own; this one stays readable after its name is gone.
        ring.unlink()
        assert not Path(SHARED_MEMORY / NAME).exists()
        again = ring.newest()
        assert again is not None and again.number == last.number
        ring.close()
