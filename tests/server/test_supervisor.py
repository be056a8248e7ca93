"""Children that end by themselves are started again, later and later; their logs do not grow without end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import supervisor
from server.paths import ServerPaths
from server.superlink import QUIET
from server.supervisor import ChildSpec, Supervisor


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The handlers of this process, which the supervisor replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerPaths:
    """A folder whose children say what they find in their environment, and end with code 3."""
    program = tmp_path / "child"
    program.write_text('#!/bin/sh\necho "$@"\nenv\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0, 1.0, 2.0))
    return ServerPaths(tmp_path / "server")


def pauses(paths: ServerPaths, ends: int) -> list[str]:
    """What is said of the child each time that it ended, until so many times."""
    paths.folder.mkdir()
    said: list[str] = []

    def say(line: str) -> None:
        if "ended with code 3" in line:
            said.append(line.partition("starts again in ")[2].partition(" s")[0])
            if len(said) == ends:
                os.kill(os.getpid(), signal.SIGTERM)

    Supervisor(paths, [ChildSpec("coordinator", "coordinator", ("fleet",))], say).run()
    return said


def test_the_pause_grows_up_to_a_bound(paths: ServerPaths) -> None:
    assert pauses(paths, 4) == ["0", "1", "2", "2"]


def test_after_a_good_start_it_is_short_again(paths: ServerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GOOD_START_S", 0.0)
    assert pauses(paths, 4) == ["0"] * 4


def test_a_log_that_has_grown_is_begun_anew_and_the_old_one_kept(
    paths: ServerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    pauses(paths, 2)
    logs = [(paths.logs / name).read_text() for name in ("coordinator.log", "coordinator.log.old")]
    assert [log.count("-m server.children coordinator") for log in logs] == [1, 1]


def test_children_find_in_their_environment_that_flower_calls_nobody(paths: ServerPaths) -> None:
    pauses(paths, 1)
    found = (paths.logs / "coordinator.log").read_text().splitlines()
    assert {f"{name}={value}" for name, value in QUIET.items()} <= set(found)
    assert f"FLWR_HOME={paths.folder / 'flower'}" in found
    assert f"-m server.children coordinator {paths.folder} fleet" in found
