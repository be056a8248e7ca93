"""Streams to be recorded, and AEDAT4 files as the independent reader `aedat` sees them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aedat
import numpy as np
from numpy.typing import NDArray

from client import replay
from client.cameras.source import IMU, TRIGGER, Portion
from mcoe_model.data.events import EVENT, Frame
from mcoe_model.data.geometry import SENSOR

WIDTH, HEIGHT = SENSOR
START_US = 1_700_000_000_000_000
PORTION_US = 20_000


@dataclass(frozen=True, eq=False)
class ArrayEvents:
    """Events of an array, as a packet made from a store that was filled one by one."""

    array: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.array)

    def numpy(self) -> NDArray[np.void]:
        return self.array

    def packet(self) -> object:
        import dv_processing as dv

        store = dv.EventStore()
        for t, x, y, polarity in self.array.tolist():
            store.push_back(t, x, y, bool(polarity))
        return store.toPacket()


def events_between(start_us: int, end_us: int, count: int, seed: int = 0) -> NDArray[np.void]:
    """So many events at random places and times, in order."""
    random = np.random.default_rng((seed, start_us))
    made = np.zeros(count, EVENT)
    made["timestamp"] = np.sort(random.integers(start_us, end_us, count))
    made["x"], made["y"] = random.integers(0, WIDTH, count), random.integers(0, HEIGHT, count)
    made["polarity"] = random.integers(0, 2, count)
    return made


def stream(events_per_s: int = 2_000, start_us: int = START_US) -> Iterator[Portion]:
    """Without end: events, frames (30 per second), motion (100 per second) and a signal each half second."""
    frame_at, signal_at = start_us, start_us
    for begin in itertools.count(start_us, PORTION_US):
        end = begin + PORTION_US
        frames, signals = [], []
        while frame_at < end:
            image = np.random.default_rng(frame_at).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
            frames.append(Frame(frame_at, 5_000, image))
            frame_at += 33_333
        while signal_at < end:
            signals.append((signal_at, 1))
            signal_at += 500_000
        motion = np.zeros(2, IMU)
        motion["timestamp"] = [begin, begin + 10_000]
        motion["accelerometer"], motion["gyroscope"], motion["temperature"] = (1, 2, 3), (4, 5, 6), 36.5
        events = ArrayEvents(events_between(begin, end, events_per_s * PORTION_US // 1_000_000))
        triggers = np.array(signals, TRIGGER) if signals else None
        yield Portion(events, tuple(frames), motion, triggers)


def portions(seconds: float, events_per_s: int = 2_000) -> list[Portion]:
    """The first seconds of `stream`."""
    return list(itertools.islice(stream(events_per_s), round(1e6 * seconds) // PORTION_US))


@dataclass(frozen=True)
class Streams:
    """All that is in a file or in several, one after another."""

    events: NDArray[np.void]
    frames: list[Frame]
    imu: list[tuple[float, ...]]
    triggers: list[tuple[int, int]]


def read_independently(paths: Iterable[Path]) -> Streams:
    """What `aedat`, which shares no code with dv-processing, reads."""
    events, frames, imu, triggers = [np.empty(0, EVENT)], [], [], []
    for path in paths:
        for packet in aedat.Decoder(str(path)):
            if "events" in packet:
                read = packet["events"]
                part = np.empty(len(read), EVENT)
                part["timestamp"], part["x"], part["y"], part["polarity"] = read["t"], read["x"], read["y"], read["on"]
                events.append(part)
            elif "frame" in packet:
                frame = packet["frame"]
                start, end = frame["exposure_begin_t"], frame["exposure_end_t"]
                frames.append(Frame(start, end - start, np.asarray(frame["pixels"]).reshape(HEIGHT, WIDTH)))
            elif "imus" in packet:
                imu += [tuple(float(value) for value in one) for one in packet["imus"].tolist()]
            else:
                triggers += [(int(one["t"]), int(one["source"])) for one in packet["triggers"]]
    return Streams(np.concatenate(events), frames, imu, triggers)


def same(left: Streams, right: Streams) -> bool:
    """Equal in every value of every stream."""
    return (
        np.array_equal(left.events, right.events)
        and left.imu == right.imu
        and left.triggers == right.triggers
        and len(left.frames) == len(right.frames)
        and all(
            (a.start_us, a.exposure_us) == (b.start_us, b.exposure_us) and np.array_equal(a.image, b.image)
            for a, b in zip(left.frames, right.frames, strict=True)
        )
    )


def motion(sample: np.void) -> tuple[float, ...]:
    """A sample in the reader's order, whose last three are those of a compass, which this camera has not."""
    values = (sample["timestamp"], sample["temperature"], *sample["accelerometer"], *sample["gyroscope"], 0, 0, 0)
    return tuple(float(value) for value in values)


def expected(given: list[Portion]) -> Streams:
    """What was given, as the reader is to see it."""
    events = [portion.events.numpy() for portion in given if portion.events is not None]
    imu = [one for portion in given if portion.imu is not None for one in portion.imu]
    return Streams(
        np.concatenate([np.empty(0, EVENT), *events]),
        [frame for portion in given for frame in portion.frames],
        [motion(one) for one in imu],
        [(int(one["timestamp"]), int(one["type"])) for p in given if p.triggers is not None for one in p.triggers],
    )


def stream_of(pieces: list[replay.Streams]) -> Streams:
    """What was replayed, as the reader would have seen it."""
    return expected(
        [Portion(ArrayEvents(piece.events), piece.frames, piece.imu, piece.triggers) for piece in pieces]
    )
