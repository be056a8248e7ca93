"""Ports for the tests: free, below those that the system hands out by itself, and no two workers' are the same."""

from __future__ import annotations

import os

from simulations.fleet.processes import free_ports

#: Where each of five workers looks: below 32768, from where on Linux chooses a port for whoever does not care.
_FIRST, _EACH, _WORKERS = 10_000, 4_000, 5
_given: set[int] = set()


def free_port(count: int = 3) -> int:
    """The first of so many ports in a row that were free a moment ago and were given to nobody in this process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    begin = _FIRST + _EACH * worker
    while not _given.isdisjoint(ports := range(found := free_ports(count, begin, begin + _EACH - 1), found + count)):
        pass
    _given.update(ports)
    return found
