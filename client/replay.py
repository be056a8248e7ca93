"""Recordings, read again: how others ask the process that decodes segments (`client.replay_process`), and what for.

A damaged file may end a process from inside dv-processing, so each request gets a process of its own, and this module
needs NumPy only. What is handed over is decrypted, and goes through pipes: it never has a place on a disk.

To the process: a line of JSON (`Request`), then each segment after its length (8 bytes), then a length of 0. From it:
lines of JSON, each followed by as many bytes as it says; the last one says ``"is": "end"``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client.cameras.source import IMU, TRIGGER
from mcoe_model.data.events import EVENT, Frame, Pair
from mcoe_model.data.geometry import PICTURE_SIZE, Geometry
from mcoe_model.errors import DataInvalid, ExitCode, McoeError, MissingExtra

#: The length of a segment, before it.
LENGTH = struct.Struct("<Q")
#: What the arrays of a portion are made of.
DTYPES = {"events": EVENT, "imu": IMU, "triggers": TRIGGER}

#: Codes of a process that somebody ended, such as a machine that has no memory left. Faults of its own are others.
_ENDED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class Request:
    """What is wanted of a session's segments, from one time of the camera's clock up to another.

    - ``pairs``: pictures; the first window begins with the last frame before ``from_us``.
    - ``streams``: events, frames, motion and signals as they were recorded.
    - ``content``: nothing but how much of each there is, and from when to when.
    """

    want: Literal["pairs", "streams", "content"]
    from_us: int = 0
    to_us: int = 1 << 62
    geometry: Geometry | None = None

    def to_json(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Request:
        """What `to_json` made."""
        read = json.loads(line)
        geometry = read.pop("geometry")
        return cls(**read, geometry=None if geometry is None else Geometry(**geometry))


@dataclass(frozen=True)
class Content:
    """What segments hold; times in the camera's microseconds, None where there is nothing.

    ``refused``: what was left out because it cannot be right.
    """

    events: int
    frames: int
    imu: int
    triggers: int
    refused: int
    starts_us: int | None
    ends_us: int | None


@dataclass(frozen=True, eq=False)
class Streams:
    """A piece of a recording: arrays of dtype EVENT, IMU and TRIGGER, and frames, each in the order of its times."""

    events: NDArray[np.void]
    frames: tuple[Frame, ...]
    imu: NDArray[np.void]
    triggers: NDArray[np.void]


async def pairs(
    segments: Iterable[bytes],
    geometry: Geometry,
    from_us: int,
    to_us: int,
    may_go_on: Callable[[], Awaitable[object]] | None = None,
) -> list[Pair]:
    """The pictures whose windows end in [from_us, to_us], of a session's segments that lie one after another.

    They are those that were shown live. While ``may_go_on`` is awaited nothing more is taken from the process that
    reads them, which stands still as soon as its pipe is full.

    Raises DataInvalid for segments that cannot be read, McoeError when somebody ended that process, which says nothing
    of the segments, and what ``segments`` raises.
    """
    found = []
    async with aclosing(_replayed(Request("pairs", from_us, to_us, geometry), segments)) as replayed:
        async for said, content in replayed:
            if may_go_on is not None:
                await may_go_on()
            if said["is"] == "pair":
                frame, event = np.frombuffer(content, np.uint8).reshape(2, PICTURE_SIZE, PICTURE_SIZE)
                found.append(Pair(said["number"], said["end_us"], frame, event, said["fresh"]))
    return found


async def streams(segments: Iterable[bytes], from_us: int = 0, to_us: int = 1 << 62) -> AsyncIterator[Streams]:
    """What was recorded in [from_us, to_us], in short pieces; a frame counts by its start. Raises as `pairs`."""
    arrays: dict[str, NDArray[np.void]] = {}
    frames: list[Frame] = []
    async with aclosing(_replayed(Request("streams", from_us, to_us), segments)) as replayed:
        async for said, content in replayed:
            match said["is"]:
                case "frame":
                    image = np.frombuffer(content, np.uint8).reshape(said["shape"])
                    frames.append(Frame(said["start_us"], said["exposure_us"], image))
                case "portion":
                    yield Streams(arrays["events"], tuple(frames), arrays["imu"], arrays["triggers"])
                    arrays, frames = {}, []
                case name if name in DTYPES:
                    arrays[name] = np.frombuffer(content, DTYPES[name])


async def content(segments: Iterable[bytes]) -> Content:
    """What segments hold, such as the one that was open when its process died. Raises as `pairs`."""
    async with aclosing(_replayed(Request("content"), segments)) as replayed:
        async for said, _ in replayed:
            if said["is"] == "end":
                found = Content(**{name: said[name] for name in Content.__dataclass_fields__})
    return found


async def _replayed(request: Request, segments: Iterable[bytes]) -> AsyncGenerator[tuple[dict[str, Any], bytes], None]:
    """What the process says, each with the bytes that belong to it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "client.replay_process", stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LINE_BYTES
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, request, segments))
    logging = asyncio.create_task(process.stderr.read())
    said: dict[str, Any] = {"is": "nothing"}
    try:
        while (message := await _message(process.stdout)) is not None:
            said = message[0]
            yield message
        await feeding
        code = await process.wait()
        if code == ExitCode.MISSING_EXTRA:
            raise MissingExtra((await logging).decode().strip())
        if code in _ENDED:
            raise McoeError("reading a recording was broken off, since its process was ended; try again")
        if code or said["is"] != "end":
            raise DataInvalid("a segment of this recording cannot be read; it is damaged")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        feeding.cancel()
        await asyncio.gather(_drained(process.stdout), logging, feeding, return_exceptions=True)
        await asyncio.gather(_drained(process.stderr), process.wait())


async def _drained(output: asyncio.StreamReader) -> None:
    """Read what a process still says to its end, and keep nothing.

    asyncio stops reading what nobody takes, and tells that a process has ended only once it has read all of it.
    """
    while await output.read(_LINE_BYTES):
        pass


async def _message(pipe: asyncio.StreamReader) -> tuple[dict[str, Any], bytes] | None:
    """The next thing that the process says; None when it ended, even in the middle of it."""
    try:
        said = json.loads(await pipe.readuntil())
        return said, await pipe.readexactly(said.pop("bytes"))
    except asyncio.IncompleteReadError:
        return None


async def _feed(pipe: asyncio.StreamWriter, request: Request, segments: Iterable[bytes]) -> None:
    """Hand over the request and the segments. A process that has ended wants no more of them."""
    with suppress(ConnectionError):
        try:
            pipe.write(request.to_json())
            for segment in segments:
                if not segment:
                    raise DataInvalid("a segment of this recording is empty")
                pipe.write(LENGTH.pack(len(segment)))
                pipe.write(segment)
                await pipe.drain()
            pipe.write(LENGTH.pack(0))
            await pipe.drain()
        finally:
            pipe.close()
