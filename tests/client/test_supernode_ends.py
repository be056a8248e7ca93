"""A SuperNode that ends again and again, as Flower's does with its code 305 when the server turns it away."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.clientapp import ClientApp

from client.node import BACKOFF_S, Connection, Node

#: Ends so many times as Flower's process does with any code that is an error; then it stays.
PROGRAM = """#!/bin/sh
echo started >> {log}
[ $(wc -l < {log}) -gt {times} ] || exit 1
exec sleep 600
"""
TIMES = 12


class Hasty(threading.Event):
    """Waits for nothing, and remembers for how long it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout or 0.0)
        return super().wait(0.005)


def test_it_is_started_again_for_as_long_as_it_takes_and_the_members_standing_is_asked_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that believes in a killed SuperNode turns its successor away for a minute; one may be away for weeks."""
    log, program = tmp_path / "log", tmp_path / "program"
    program.write_text(PROGRAM.format(log=log, times=TIMES))
    program.chmod(0o755)
    monkeypatch.setattr("client.node.sys", SimpleNamespace(executable=str(program)))
    stopped, refreshed = Hasty(), list[int]()

    def refresh() -> bool:
        refreshed.append(1)
        return False

    node = Node(Connection("127.0.0.1:1", tmp_path, tmp_path, tmp_path), ClientApp(), stopped, refresh)
    runs = threading.Thread(target=node.run)
    runs.start()
    ends = time.monotonic() + 120
    try:
        while not log.exists() or len(log.read_text().splitlines()) <= TIMES:
            assert runs.is_alive() and time.monotonic() < ends
            time.sleep(0.02)
    finally:
        stopped.set()
        runs.join(60)
    assert not runs.is_alive() and len(refreshed) == TIMES
    pauses = [asked for asked in stopped.asked if asked >= BACKOFF_S[0]]
    assert pauses == [*BACKOFF_S, *[BACKOFF_S[-1]] * (TIMES - len(BACKOFF_S))] and sum(pauses[:8]) > 60
