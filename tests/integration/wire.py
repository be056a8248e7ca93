"""A proxy in front of a server, and what is looked for in all that wearables send through it.

It is TLS to both sides, with the server's own certificate, whose authority is the test's: so it reads everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from ports import free_port

from simulations.fleet.server import Server


class Wire:
    """``sent``: what came from wearables, one entry for each connection. It ends with the process."""

    def __init__(self, server: Server) -> None:
        certificates = server.folder / "certificates"
        self._server, self._port = server.port, free_port(1)
        self._inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inner.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        self._outer = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        self.sent: list[bytearray] = []
        self.address = f"127.0.0.1:{self._port}"
        self._listens = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._listens.wait(60)

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._carry, "127.0.0.1", self._port, ssl=self._inner) as listening:
            self._listens.set()
            await listening.serve_forever()

    async def _carry(self, source: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it; one that the server does not take is closed."""
        kept = bytearray()
        self.sent.append(kept)
        with contextlib.suppress(OSError), contextlib.closing(back):
            answers, sink = await asyncio.open_connection("127.0.0.1", self._server, ssl=self._outer)
            with contextlib.closing(sink):
                ways = [_pump(source, sink, kept.extend), _pump(answers, back, lambda content: None)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()

    def requests(self) -> list[tuple[str, bytes]]:
        """Method and path, and body, of every whole request."""
        return [request for kept in self.sent for request in requests(bytes(kept))]


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
    """Carry what comes, until an end."""
    with contextlib.suppress(OSError):
        while content := await source.read(1 << 16):
            note(content)
            sink.write(content)
            await sink.drain()


def requests(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The requests of one connection. A body in parts or compressed would hide what it holds, so there must be none."""
    while content:
        head, found, content = content.partition(b"\r\n\r\n")
        if not found:  # it was cut by a kill
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert not {"transfer-encoding", "content-encoding"} & fields.keys(), fields
        length = int(fields.get("content-length", 0))
        body, content = content[:length], content[length:]
        method, path, _ = first.split(" ")
        yield f"{method} {path}", body


def found_in(content: bytes, needles: Mapping[str, bytes]) -> set[str]:
    """The names of those that are in it; in whatever case their letters are, if they are more than four.

    Of four, one of the sixteen ways to write them turns up among an update's numbers in one run of a hundred.
    """
    lower = content.lower()
    return {
        name
        for name, needle in needles.items()
        if needle in content or (len(needle) > 4 and needle.lower() in lower)
    }


def times_in(content: bytes, first_us: int, last_us: int) -> list[int]:
    """Whole numbers of eight bytes, at any place and in either order, that are times of a recording: of its events."""
    found = []
    for order in ("<i8", ">i8"):
        for offset in range(8):
            whole = np.frombuffer(content[offset : offset + (len(content) - offset) // 8 * 8], order)
            found += whole[(whole >= first_us) & (whole <= last_us)].tolist()
    return found
