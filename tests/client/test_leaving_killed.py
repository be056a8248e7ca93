"""Leaving the fleet when the process dies, at any step of it: told and gone, or neither."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering_server import Answers, keys_in, worn

from client.leaving import Leaving, key_id
from client.wearers import Wearers
from mcoe_model.errors import EnrolmentRefused


class Killed(BaseException):
    """Nothing of the program runs after this, as after SIGKILL."""


def die_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Callable[[], int]:
    """Let no more than so many changes of the file system happen; how many did."""
    count = itertools.count(1)
    done = [0]
    for name in ("rename", "replace", "unlink", "mkdir", "rmdir", "fsync"):
        real = getattr(os, name)

        def change(*given: Any, real: Any = real, **named: Any) -> Any:
            if next(count) > steps:
                raise Killed
            done[0] += 1
            return real(*given, **named)

        monkeypatch.setattr(os, name, change)
    return lambda: done[0]


class Server:
    """What a fleet's server knows of one client."""

    def __init__(self) -> None:
        self.state = "enrolled"

    def answer(self) -> dict[str, str]:
        if self.state != "enrolled":
            raise EnrolmentRefused("this key is not enrolled")
        self.state = "told"
        return {"client_id": "w1"}


@pytest.mark.parametrize("way", ["withdraw", "forget"])
def test_a_wearer_who_goes_is_gone_and_the_server_told_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    kept, before = 0, whole(worn(tmp_path / "first").folder)
    for steps in itertools.count():
        folder, server, answers = tmp_path / str(steps), Server(), Answers(monkeypatch)
        answers.answer = server.answer
        shutil.copytree(tmp_path / "first", folder)
        with monkeypatch.context() as patched:
            done = die_after(patched, steps)
            try:
                Wearers(folder).close(way)
                Leaving(folder).try_all()
                finished = True
            except Killed:
                finished = False
        written = Leaving(folder).receipts()
        wearers, leaving = Wearers(folder), Leaving(folder)
        assert not leaving.try_all()
        if wearers.current == "A1":
            assert whole(wearers.paths.folder) == before and server.state == "enrolled" and leaving.receipts() == []
            kept += 1
            continue
        [told] = leaving.receipts()
        assert server.state == "told" and told.way == way
        assert bool(told.receipt) != bool(told.refused) and written in ([], [told]), "a receipt stays as it is"
        assert (
            keys_in(folder) == [] and list((folder / "wearers").iterdir()) == list((folder / "leaving").iterdir()) == []
        )
        if finished:
            break
    assert kept == 1 and done() > 20, "before the first step alone nothing has happened"


def test_a_withdrawal_that_was_queued_is_said_whenever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worn(tmp_path / "first")
    for steps in itertools.count():
        folder, server, answers = tmp_path / str(steps), Server(), Answers(monkeypatch)
        answers.answer = server.answer
        shutil.copytree(tmp_path / "first", folder)
        paths, queued = Wearers(folder).paths, False
        with monkeypatch.context() as patched:
            die_after(patched, steps)
            try:
                leaving = Leaving(folder)
                leaving.queue(paths, "withdraw")
                queued = True
                leaving.try_all()
                finished = True
            except Killed:
                finished = False
        leaving = Leaving(Wearers(folder).folder)
        assert not leaving.try_all()
        left = leaving.of(key_id(paths))
        assert (left is not None) == (server.state == "told") and (left is not None or not queued)
        assert keys_in(folder) == [paths.key], "no copy of the key is left over"
        leaving.queue(paths, "withdraw")  # the wearer, who heard no answer, presses again
        assert not leaving.try_all()
        [told] = leaving.receipts()
        assert server.state == "told" and len(answers.asked) <= 2 and told.answered
        if finished:
            break


def whole(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
