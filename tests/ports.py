"""Ports for the tests: free, below those that the system hands out by itself, and no two workers' are the same."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack, closing

#: Where each of five workers looks: below 32768, from where on Linux chooses a port for whoever does not care.
_FIRST, _EACH, _WORKERS = 10_000, 4_000, 5
_given: set[int] = set()


def free_port(count: int = 3) -> int:
    """The first of so many ports in a row that were free a moment ago and were given to nobody in this process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        first = random.randrange(_FIRST + _EACH * worker, _FIRST + _EACH * (worker + 1) - count)
        ports = range(first, first + count)
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
        except OSError:
            continue
        if _given.isdisjoint(ports):
            _given.update(ports)
            return first
