"""Pictures in memory that processes share: one writes, any number read the newest, and nobody waits for anybody.

A ring is a file on /dev/shm, which is memory and no disk. Each pair has a slot, chosen by its number, that ends in a
checksum over all of it: a slot that is read while it is written, or whose writer died in it, does not fit and is
passed over. Numbers only grow; a number that was left out says that what follows does not continue what came before
(the camera was lost, or the geometry changed), so that nobody makes a window across it.

Times are in microseconds of the camera's clock, except arrivals: nanoseconds of the machine's monotonic clock, which
all processes share.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import PICTURE_SIZE, SENSOR
from mcoe_model.errors import DataInvalid, DataMissing, DiskFull, OutputExists

#: Where rings live.
SHARED_MEMORY = Path("/dev/shm")
#: Height and width of the pictures of a pair, and of the whole sensor's.
PAIR_SHAPE = (PICTURE_SIZE, PICTURE_SIZE)
SENSOR_SHAPE = (SENSOR[1], SENSOR[0])
#: Slots of the ring that recognition reads, about two seconds, and of the one that the fit step shows.
PAIR_SLOTS = 64
PREVIEW_SLOTS = 4

_MAGIC = b"MCOE-RING-1\0"
#: Magic, slots, height, width; then, on a boundary of its own, the newest number plus one.
_HEADER = struct.Struct("<12sIII")
_NEWEST_AT = 24
_SLOTS_AT = 32
#: Of a slot: number plus one, end, arrival, whether the frame is fresh. The pictures and the checksum follow.
_SLOT = struct.Struct("<QqqQ")
_CHECKSUM = struct.Struct("<Q")


@dataclass(frozen=True)
class Arrived(Pair):
    """A pair from a ring. ``arrived_ns``: when the last of what it shows had come, by the monotonic clock."""

    arrived_ns: int


class PairRing:
    """A ring of pairs; see the module. Made by `create` (the one writer) or by `attach` (a reader)."""

    def __init__(self, name: str, memory: mmap.mmap) -> None:
        self.name = name
        self._memory = memory
        _, slots, height, width = _HEADER.unpack_from(memory)
        self.slots: int = slots
        self.shape: tuple[int, int] = (height, width)
        self._slot_bytes = _slot_bytes(self.shape)
        # One aligned word, so that it is always read whole.
        self._newest = memoryview(memory)[_NEWEST_AT : _NEWEST_AT + 8].cast("Q")

    @classmethod
    def create(cls, name: str, slots: int = PAIR_SLOTS, shape: tuple[int, int] = PAIR_SHAPE) -> PairRing:
        """A new ring, readable by this user alone. Raises OutputExists, DiskFull when memory has no room."""
        size = _SLOTS_AT + slots * _slot_bytes(shape)
        try:
            descriptor = os.open(SHARED_MEMORY / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as fault:
            raise OutputExists("there is such a ring of pictures already; another camera's process made it") from fault
        try:
            # Room is taken now: writing where there is none would be a SIGBUS.
            os.posix_fallocate(descriptor, 0, size)
            memory = mmap.mmap(descriptor, size)
        except OSError as fault:
            (SHARED_MEMORY / name).unlink()
            raise DiskFull(f"no room in {SHARED_MEMORY} for a ring of {size >> 10} KiB; free some memory") from fault
        finally:
            os.close(descriptor)
        _HEADER.pack_into(memory, 0, _MAGIC, slots, *shape)
        return cls(name, memory)

    @classmethod
    def attach(cls, name: str) -> PairRing:
        """The ring of this name, to be read. Raises DataMissing, DataInvalid."""
        try:
            with (SHARED_MEMORY / name).open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as fault:
            raise DataMissing("there is no such ring of pictures; the camera's process has ended") from fault
        except ValueError as fault:
            raise DataInvalid("a ring of pictures is empty") from fault
        if len(memory) < _SLOTS_AT or _HEADER.unpack_from(memory)[0] != _MAGIC:
            raise DataInvalid("a ring of pictures was made by another version of this program")
        return cls(name, memory)

    def put(self, pair: Pair, arrived_ns: int | None = None) -> None:
        """Show a pair, of a later number than those before; its pictures have the ring's shape."""
        arrived_ns = time.monotonic_ns() if arrived_ns is None else arrived_ns
        assert pair.frame.shape == pair.event.shape == self.shape
        content = _SLOT.pack(pair.number + 1, pair.end_us, arrived_ns, pair.fresh)
        content += pair.frame.tobytes() + pair.event.tobytes()
        start = self._start(pair.number)
        self._memory[start : start + self._slot_bytes] = content + _CHECKSUM.pack(zlib.crc32(content))
        self._newest[0] = pair.number + 1

    def newest(self) -> Arrived | None:
        """The newest pair; None while there is none."""
        number = self._head() - 1
        # A processor may show the newest number before all of its slot; the one before is whole.
        return next((pair for n in (number, number - 1) if n >= 0 and (pair := self._read(n))), None)

    def since(self, number: int) -> tuple[list[Arrived], int]:
        """The pairs later than ``number`` (-1: all) in order, and how many of the numbers are gone or never were."""
        head = self._head()
        first = max(number + 1, head - self.slots)
        pairs = [pair for n in range(first, head) if (pair := self._read(n))]
        return pairs, max(0, head - number - 1) - len(pairs)

    def close(self) -> None:
        """Read or write no more."""
        self._newest.release()
        self._memory.close()

    def unlink(self) -> None:
        """Take the ring's name away; the memory goes with the last process that has it open."""
        (SHARED_MEMORY / self.name).unlink(missing_ok=True)

    def _head(self) -> int:
        newest: int = self._newest[0]
        return newest

    def _start(self, number: int) -> int:
        return _SLOTS_AT + number % self.slots * self._slot_bytes

    def _read(self, number: int) -> Arrived | None:
        """The pair of this number; None when its slot holds another one, or is being written."""
        start = self._start(number)
        slot = self._memory[start : start + self._slot_bytes]  # a copy: what is checked is what is used
        content, checksum = slot[: -_CHECKSUM.size], slot[-_CHECKSUM.size :]
        stored, end_us, arrived_ns, fresh = _SLOT.unpack_from(content)
        if stored != number + 1 or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(content):
            return None
        frame, event = np.frombuffer(content, np.uint8, offset=_SLOT.size).reshape(2, *self.shape)
        return Arrived(number, end_us, frame, event, bool(fresh), arrived_ns)


def unlink_rings(prefix: str) -> None:
    """Take away the rings that processes of before have left: those whose names begin so."""
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        path.unlink(missing_ok=True)


def _slot_bytes(shape: tuple[int, int]) -> int:
    height, width = shape
    return _SLOT.size + 2 * height * width + _CHECKSUM.size
