"""Children of the main process: real processes that are talked to, end in every way, and are started again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client import children
from client.children import Child


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(children, "BACKOFF_S", (0.05, 0.1))
    monkeypatch.setattr(children, "GRACE_S", 1.0)
    monkeypatch.setattr(children, "TERM_S", 1.0)


class Heard:
    """What a child said, and how often it was gone."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.gone = 0

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["is"] == name]

    def went(self) -> None:
        self.gone += 1


@asynccontextmanager
async def kept(log: Path, heard: Heard, arguments: Callable[[], list[str] | None] = lambda: []) -> AsyncIterator[Child]:
    child = Child("child", "talking_child", arguments, log / "child.log", heard=heard.events.append, gone=heard.went)
    running = asyncio.create_task(child.run())
    try:
        yield child
    finally:
        await child.end()
        await asyncio.wait_for(running, 120)


async def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_is_told_and_answers_and_ends_when_it_is_asked(tmp_path: Path) -> None:
    async def scene() -> None:
        heard = Heard()
        async with kept(tmp_path, heard, lambda: ["--name", "it"]) as child:
            await until(lambda: heard.named("ready") != [])
            assert heard.events[0]["said"] == ["--name", "it"] and heard.events[0]["pid"] == child.pid
            assert child.say({"do": "repeat", "text": "è\n"})
            await until(lambda: heard.named("repeated") != [])
            assert heard.named("repeated")[0]["text"] == "è\n"
        assert heard.gone == 1 and not alive(heard.events[0]["pid"]) and not child.say({"do": "repeat", "text": ""})

    asyncio.run(scene())


@pytest.mark.parametrize("how", ["SIGKILL", "SIGABRT", "abort", "babble", "mumble", "killed by us"])
def test_however_it_ends_it_is_started_again(tmp_path: Path, how: str) -> None:
    async def scene() -> None:
        heard = Heard()
        async with kept(tmp_path, heard) as child:
            for times in (1, 2):
                await until(lambda times=times: len(heard.named("ready")) == times)
                pid = heard.events[-1]["pid"]
                if how.startswith("SIG"):
                    os.kill(pid, getattr(signal, how))
                elif how == "killed by us":
                    child.kill()
                else:
                    child.say({"do": how})
                await until(lambda times=times: heard.gone == times)
            await until(lambda: len(heard.named("ready")) == 3)
        assert len({event["pid"] for event in heard.named("ready")}) == 3

    asyncio.run(scene())


def test_it_is_not_started_while_there_are_no_arguments(tmp_path: Path) -> None:
    wanted = False

    async def scene() -> None:
        nonlocal wanted
        heard = Heard()
        async with kept(tmp_path, heard, lambda: [] if wanted else None) as child:
            await asyncio.sleep(0.3)
            assert child.pid is None and heard.events == []
            wanted = True
            await until(lambda: heard.named("ready") != [])
            wanted = False
            child.kill()
            await until(lambda: heard.gone == 1)
            await asyncio.sleep(0.3)
            assert child.pid is None and len(heard.events) == 1

    asyncio.run(scene())


def test_one_that_is_being_made_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consent may be withdrawn at any moment."""
    made, wanted, making = asyncio.create_subprocess_exec, True, asyncio.Event()

    async def slowly(*command: Any, **options: Any) -> Any:
        making.set()
        await asyncio.sleep(0.2)
        return await made(*command, **options)

    async def scene() -> None:
        nonlocal wanted
        monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
        heard = Heard()
        async with kept(tmp_path, heard, lambda: [] if wanted else None) as child:
            await making.wait()
            wanted = False
            child.kill()
            await until(lambda: heard.gone == 1)
            await asyncio.sleep(0.3)
            assert child.pid is None and heard.events == []

    asyncio.run(scene())


def test_the_log_tells_one_that_was_stopped_from_one_that_died(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mcoe")

    async def scene() -> None:
        heard = Heard()
        async with kept(tmp_path, heard) as child:
            await until(lambda: len(heard.named("ready")) == 1)
            child.kill()
            await until(lambda: len(heard.named("ready")) == 2)
            assert "was stopped" in caplog.text and "ended with code" not in caplog.text
            os.kill(heard.events[-1]["pid"], signal.SIGKILL)
            await until(lambda: len(heard.named("ready")) == 3)
            assert "ended with code -9" in caplog.text and child.last_code == -signal.SIGKILL

    asyncio.run(scene())


def test_one_that_hears_nothing_is_killed_in_the_end(tmp_path: Path) -> None:
    async def scene() -> None:
        heard = Heard()
        async with kept(tmp_path, heard) as child:
            await until(lambda: heard.named("ready") != [])
            child.say({"do": "hang"})
            await until(lambda: heard.named("hangs") != [])
        assert not alive(heard.events[0]["pid"])

    asyncio.run(scene())
