"""When the wearable learns: with power, and cool enough, by what its machine tells. Store and lesson book are real; the
learning process is a stand-in that waits to be stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_times import record
from toy_camera import pairs, write_toy_model

from client.check_in_gates import CheckInRules
from client.consent_text import ConsentTexts
from client.model_import import import_model
from client.sessions import Label, Store
from client.settings import ClientSettings
from client.wearable import Wearable, learning
from mcoe_model.data.events import Pair

SECOND = 1_000_000
TEXTS = ConsentTexts(None)
#: A learning process that takes all that it is given, and learns nothing of it.
TAKES_ALL = "#!/bin/sh\necho $$ > {told}\nexec cat > /dev/null\n"


class Machine:
    """What the wearable's machine tells of itself, and the process that it starts to learn."""

    def __init__(self, folder: Path) -> None:
        self.system, self.program, self._told = folder / "class", folder / "program", folder / "pid"
        self.system.mkdir()
        self.program.write_text(TAKES_ALL.format(told=self._told))
        self.program.chmod(0o755)

    def tells(self, name: str, content: object) -> None:
        file = self.system / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")

    @property
    def state(self) -> str:
        """Of the process, as proc(5) has it; T: it stands still. Empty before the first and after its end."""
        try:
            return Path(f"/proc/{self._told.read_text().strip()}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(learning, "sys", SimpleNamespace(executable=str(made.program)))
    monkeypatch.setattr(learning, "LOOK_S", 0.05)
    return made


@asynccontextmanager
async def labelled(folder: Path, machine: Machine) -> AsyncIterator[Wearable]:
    """A wearable with two labelled spans that looks for something to learn."""
    rules = CheckInRules(system=machine.system)
    wearable = Wearable(folder / "wearable", "simulated:3", ClientSettings().rules(), TEXTS, rules)
    await wearable.open()
    await wearable.set_up(None, ("capture", "labels", "learning"), TEXTS.text("en"))
    assert wearable.paths is not None
    import_model(wearable.paths, write_toy_model(folder / "base.safetensors", 1))

    def label(store: Store) -> None:
        session = record(store, folder / "memory", bytes(100))
        for start in (0, 4):
            store.label(store.add_span(session, start * SECOND, (start + 2) * SECOND).id, Label("fear"))

    await wearable.kept(label)
    task = asyncio.create_task(wearable.keep_learning())
    try:
        yield wearable
    finally:
        wearable.stop_learning()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await wearable.kept(Store.close)


async def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


def gates(wearable: Wearable) -> list[str]:
    return [why.key for why in wearable.learning.closed]


def test_it_waits_for_charge_stands_still_when_hot_and_goes_on(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()

    async def scene() -> None:
        async with labelled(tmp_path, machine) as wearable:

            async def becomes_hot(segments: Any, geometry: Any, start_us: int, *_: Any) -> list[Pair]:
                read.append(start_us)
                if len(read) == 1:  # while the first span's pictures are read
                    machine.tells("thermal/thermal_zone0/temp", 75_000)
                    await until(lambda: wearable.learning.state == "paused")
                return pairs(2)  # so few that the pipe takes them though nobody reads

            monkeypatch.setattr(learning, "pairs", becomes_hot)
            await until(lambda: gates(wearable) == ["gate.battery"])
            await asyncio.sleep(0.3)  # several looks
            assert (wearable.learning.state, wearable.learning.waiting, machine.state) == ("waiting", 2, "")

            machine.tells("power_supply/BAT0/capacity", 41)
            await until(lambda: machine.state == "T" and gates(wearable) == ["gate.hot"])
            assert wearable.learning.state == "paused"
            await asyncio.sleep(0.5)
            assert len(read) == 1, "nor is anything read for it meanwhile"

            machine.tells("thermal/thermal_zone0/temp", 74_000)
            await until(lambda: len(read) == 2 and machine.state != "T" and gates(wearable) == [])

    machine.tells("power_supply/BAT0/type", "Battery")
    machine.tells("power_supply/BAT0/capacity", 40)
    asyncio.run(scene())


def test_mains_do_for_an_empty_battery_and_what_the_machine_lacks_stops_nothing_and_is_said_once(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began = list[int]()

    async def no_more(*_: Any) -> list[Pair]:
        began.append(1)
        return pairs(2)

    monkeypatch.setattr(learning, "pairs", no_more)
    caplog.set_level(logging.INFO, "mcoe")

    async def scene() -> None:
        async with labelled(tmp_path, machine) as wearable:
            await until(lambda: len(began) > 4)  # it begins again and again: nothing is learned
            await until(lambda: gates(wearable) == [])
            machine.tells("power_supply/BAT0/type", "Battery")
            machine.tells("power_supply/BAT0/capacity", 1)
            await until(lambda: gates(wearable) == ["gate.battery"])
            machine.tells("power_supply/AC/type", "Mains")
            machine.tells("power_supply/AC/online", 1)
            await until(lambda: gates(wearable) == [])

    asyncio.run(scene())
    said = [one.getMessage() for one in caplog.records if "does not tell" in one.getMessage()]
    assert said == ["this machine does not tell its power and temperature: that stops no learning"]


def test_what_is_left_out_is_counted_by_why(tmp_path: Path, machine: Machine) -> None:
    """A label that a later one contradicts, and those of a recording with a fault, are said and never waited for."""

    async def scene() -> None:
        async with labelled(tmp_path, machine) as wearable:

            def say_more(store: Store) -> None:
                [session] = store.sessions()
                store.label(store.add_span(session.id, SECOND, 3 * SECOND).id, Label("surprise"))
                faulty = record(store, tmp_path / "memory", bytes(100))
                store.label(store.add_span(faulty, 0, 2 * SECOND).id, Label("fear"))
                store.flag(faulty, "unreadable")

            await wearable.kept(say_more)
            await until(lambda: (wearable.learning.contradicted, wearable.learning.flawed) == (1, 1))
            assert (wearable.learning.waiting, wearable.learning.lost) == (2, 0)

    machine.tells("thermal/thermal_zone0/temp", 80_000)
    asyncio.run(scene())


def test_withdrawing_while_pictures_are_read_waits_for_no_gate(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()

    async def scene() -> None:
        async with labelled(tmp_path, machine) as wearable:

            async def becomes_hot(
                segments: Any, geometry: Any, start_us: int, end_us: int, may_go_on: Callable[[], Any]
            ) -> list[Pair]:
                wearable.stop_learning()
                machine.tells("thermal/thermal_zone0/temp", 75_000)
                await asyncio.sleep(4 * learning._WATCH_S)  # whoever still looks sees it
                read.append(start_us)
                await may_go_on()
                return pairs(2)

            monkeypatch.setattr(learning, "pairs", becomes_hot)
            await until(lambda: read)
            await asyncio.wait_for(wearable.withdraw("learning"), 60)
            assert wearable.paths is not None and not wearable.paths.lessons.exists()

    asyncio.run(scene())
