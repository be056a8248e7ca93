"""A bound on the whole of an exchange over HTTP: a timeout alone begins anew with every byte that trickles in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def ended_after(seconds: float) -> Iterator[dict[str, Any]]:
    """Extensions for a request of httpx, whose connection is shut down after so many seconds, whatever it is at.

    It has to be the first of its client: a connection that was there before is not seen.
    """
    connections: list[socket.socket] = []
    late = threading.Event()

    def trace(event: str, told: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            # Another handle of it: TLS takes the socket itself over, and may be what takes so long.
            connections.append(told["return_value"].get_extra_info("socket").dup())
            if late.is_set():
                end()

    def end() -> None:
        late.set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield {"trace": trace}
    finally:
        timer.cancel()
        for connection in connections:
            connection.close()
