"""The process that decodes a session's segments and makes of them what was asked for; `client.replay` starts it.

dv-processing wants a file with a name, so each segment is put in one that has a place in memory only (memfd), and the
name is a link to it. A segment that is damaged may end this process; nothing else is lost with it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from client.cameras.recording import SUFFIX, Recording
from client.cameras.source import STREAMS, Portion, Stream
from client.child_process import apart_from_prints, no_core_dump
from client.portions import counts, span_us
from client.replay import DTYPES, LENGTH, Request
from client.ring import SHARED_MEMORY
from mcoe_model.data.events import Pair, Pairing
from mcoe_model.errors import DataInvalid, McoeError
from mcoe_model.workers import end_with_parent

#: What a damaged length may make dv-processing ask for, and not get.
_MOST_MEMORY = 8 << 30
_PORTION_BYTES = 1 << 20


class Replay:
    """What was found so far. ``out`` is where it goes."""

    def __init__(self, request: Request, out: BinaryIO) -> None:
        self._request = request
        self._out = out
        self._pairing = None if request.geometry is None else Pairing(request.geometry)
        self._counts: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        self._refused = 0
        self._starts_us: int | None = None
        self._ends_us: int | None = None

    def add(self, portion: Portion) -> None:
        """What came next in the recording."""
        self._count(portion)
        if self._request.want == "streams":
            self._tell_streams(portion)
        if self._pairing is not None:
            pairs = [pair for frame in portion.frames for pair in self._pairing.add_frame(frame)]
            if portion.events is not None:
                pairs += self._pairing.add_events(portion.events.numpy())
            self._tell_pairs(pairs)

    def end(self) -> None:
        """There is no more."""
        if self._pairing is not None and self._ends_us is not None:
            self._tell_pairs(self._pairing.reach(self._ends_us))
        said = {"refused": self._refused, "starts_us": self._starts_us, "ends_us": self._ends_us}
        self._say({"is": "end"} | self._counts | said)
        self._out.flush()

    def _count(self, portion: Portion) -> None:
        self._refused += portion.refused
        for name, count in counts(portion).items():
            self._counts[name] += count
        span = span_us(portion)
        if span is not None:
            self._starts_us = span[0] if self._starts_us is None else min(self._starts_us, span[0])
            self._ends_us = span[1] if self._ends_us is None else max(self._ends_us, span[1])

    def _tell_pairs(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            if self._request.from_us <= pair.end_us <= self._request.to_us:
                said = {"is": "pair", "number": pair.number, "end_us": pair.end_us, "fresh": pair.fresh}
                self._say(said, pair.frame.tobytes() + pair.event.tobytes())

    def _tell_streams(self, portion: Portion) -> None:
        first, last = self._request.from_us, self._request.to_us
        events = None if portion.events is None else portion.events.numpy()
        for name, array in (("events", events), ("imu", portion.imu), ("triggers", portion.triggers)):
            of_kind = np.empty(0, DTYPES[name]) if array is None else array
            wanted = of_kind[(of_kind["timestamp"] >= first) & (of_kind["timestamp"] <= last)]
            self._say({"is": name}, wanted.tobytes())
        for frame in portion.frames:
            if first <= frame.start_us <= last:
                said = {"is": "frame", "start_us": frame.start_us, "exposure_us": frame.exposure_us}
                self._say(said | {"shape": frame.image.shape}, frame.image.tobytes())
        self._say({"is": "portion"})

    def _say(self, event: dict[str, Any], content: bytes = b"") -> None:
        self._out.write(json.dumps(event | {"bytes": len(content)}).encode() + b"\n" + content)


def segments(given: BinaryIO) -> Iterator[int]:
    """Each segment as a file in memory, whose descriptor is closed again. Raises DataInvalid for input that is cut."""
    while length := LENGTH.unpack(_exactly(given, LENGTH.size))[0]:
        descriptor = os.memfd_create("segment")
        try:
            while length:
                length -= os.write(descriptor, _exactly(given, min(length, _PORTION_BYTES)))
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def named(descriptor: int) -> Iterator[Path]:
    """A name that dv-processing takes for a file without one, while it opens it."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        link = Path(folder, f"segment{SUFFIX}")
        link.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield link


def _exactly(given: BinaryIO, size: int) -> bytes:
    content = given.read(size)
    if len(content) != size:
        raise DataInvalid("a segment was cut on its way")
    return content


def main() -> None:
    """Answer the request on standard input."""
    end_with_parent()
    no_core_dump()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    out = apart_from_prints()
    try:
        replay = Replay(Request.from_json(sys.stdin.buffer.readline()), out)
        for descriptor in segments(sys.stdin.buffer):
            with named(descriptor) as path:
                recording = Recording(path, pace=None)
            while (portion := recording.read()) is not None or not recording.ended:
                if portion is not None:
                    replay.add(portion)
        replay.end()
    except McoeError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
