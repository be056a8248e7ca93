"""A recording has priority: the fleet's task stands still while one runs, and then gives the same bits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_store import ToyStore, payload, task

from client import fleet, serving
from client.consent_text import ConsentTexts, read_consent_text
from client.enrolment import ClientPaths
from client.fleet import stand_still
from client.learner import learn
from client.page.wearable_protocol import Camera
from client.settings import ClientSettings
from client.wearable import Wearable
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import tensors_sha256
from mcoe_model.tensors import Payload

TASK = task(fine_tune=FineTuneSettings(epochs=20, batch_size=4, learning_rate=3e-3))


@pytest.fixture
def recording() -> Iterator[threading.Event]:
    """Whether one runs; what computes in this process is to keep to it."""
    runs = threading.Event()
    handle = stand_still(runs.is_set)
    yield runs
    runs.clear()
    handle.remove()


def test_a_task_stands_still_while_a_recording_runs_and_gives_the_same_bits(recording: threading.Event) -> None:
    alone = learn(ToyStore("w1", 8), TASK, Payload.of(payload()))
    made = list[str]()

    def work() -> None:
        learned = learn(ToyStore("w1", 8), TASK, Payload.of(payload()))
        made.append(tensors_sha256(learned.update))

    def used() -> float:
        """Processor seconds of the thread that learns."""
        return time.clock_gettime(time.pthread_getcpuclockid(learns.ident or 0))

    learns = threading.Thread(target=work)
    learns.start()
    while used() < 0.1:  # it has begun
        time.sleep(0.005)
    recording.set()
    before, ends = -1.0, time.monotonic() + 60
    while used() - before > 0.02:  # at once, where the machine has time for it
        before = used()
        assert time.monotonic() < ends, "it goes on"
        time.sleep(0.5)
    assert learns.is_alive() and not made
    recording.clear()
    learns.join(120)
    assert made == [tensors_sha256(alone.update)]


FOUND = serving.Comparison(40, 2, 25, 20, 5, 0)
#: Takes a key and works, without a process beside it, until it is told to come to its end.
TRIAL = """#!/bin/sh
echo $$ > {folder}/pid
read key
while [ ! -e {folder}/ends ]; do :; done
echo '{found}'
"""


def test_an_offered_model_is_not_tried_while_a_recording_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, runs, found = tmp_path / "program", threading.Event(), list[serving.Comparison]()
    program.write_text(TRIAL.format(folder=tmp_path, found=serving.to_json(FOUND)))
    program.chmod(0o755)
    monkeypatch.setattr(serving, "sys", SimpleNamespace(executable=str(program)))
    monkeypatch.setattr(serving, "labels_here", lambda *_: [0, 3] * 20)

    def tries() -> None:
        paths = ClientPaths(tmp_path)
        found.append(serving.try_beside(paths, tmp_path, tmp_path, bytes(32), runs.is_set))

    def state() -> str:
        try:
            process = Path("/proc", (tmp_path / "pid").read_text().strip())
            return (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    def until(expected: str) -> None:
        ends = time.monotonic() + 60
        while state() != expected:
            assert time.monotonic() < ends
            time.sleep(0.01)

    trying = threading.Thread(target=tries)
    trying.start()
    try:
        until("R")
        runs.set()
        until("T")
        (tmp_path / "ends").touch()
        time.sleep(0.5)
        assert state() == "T" and not found
    finally:  # else it goes round for ever
        (tmp_path / "ends").touch()
        runs.clear()
        trying.join(60)
    assert found == [FOUND] and state() == ""


def test_what_is_said_of_recordings_is_heard_and_the_end_of_it_lets_the_task_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the process, which finishes the task that it has begun, could not end."""
    ended, runs, seen = list[int](), threading.Event(), list[bool]()

    class Said(StringIO):
        def readline(self, size: int = -1, /) -> str:
            seen.append(runs.is_set())
            return super().readline(size)

    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(number))
    lines = [{"recording": False}, {"recording": True}]
    monkeypatch.setattr(sys, "stdin", Said("".join(json.dumps(line) + "\n" for line in lines)))
    fleet._listen({"recording": True}, runs)
    assert seen == [True, False, True] and not runs.is_set() and ended == [signal.SIGTERM]


def test_the_fleets_part_is_told_of_a_recording_before_it_begins(tmp_path: Path) -> None:
    said = list[dict[str, bool]]()

    async def scene() -> None:
        wearable = Wearable(tmp_path, "none", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        await wearable.set_up(None, ("capture",), read_consent_text(None, "en"))
        wearable.capture.camera = Camera("DAVIS346", True, None)
        wearable.fleet.say = lambda command: bool(said.append(command)) or True  # type: ignore[method-assign]

        async def begins(session: str) -> None:
            assert said == [{"recording": True}]

        wearable.capture.record = begins  # type: ignore[method-assign]
        await wearable.start_recording()
        assert said == [{"recording": True}]

    asyncio.run(scene())
