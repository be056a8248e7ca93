"""How a wearable is: what the main process writes down, and what the fleet's process makes of it."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from session_times import TRAINING, Clock, agree, opened, record

from client.consent_text import ConsentTexts, read_consent_text
from client.enrolment import ClientPaths
from client.health import keep_tally, read_health
from client.model_import import import_model
from client.sessions import Label, Store, StoreRules
from client.sessions.times import DAY_US
from client.wearable import Wearable
from mcoe_model.health import UNKNOWN, Health
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build

SECOND = 1_000_000


def sensors(folder: Path, files: dict[str, str]) -> Path:
    """A machine's sysfs that tells this."""
    for name, content in files.items():
        path = folder / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return folder / "class"


def test_what_nobody_tells_is_unknown(tmp_path: Path) -> None:
    found = read_health(ClientPaths(tmp_path), tmp_path / "no sensors")
    assert found == Health(free_gb=found.free_gb, clock_set=found.clock_set)
    assert found.free_gb >= 0
    assert read_health(ClientPaths(tmp_path / "nowhere"), tmp_path).free_gb == UNKNOWN


def test_the_machines_sensors_are_told_as_whole_numbers(tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    said = {
        "power_supply/BAT0/type": "Battery", "power_supply/BAT0/capacity": "64",
        "thermal/thermal_zone0/temp": "41400", "thermal/thermal_zone1/temp": "71600",
        "thermal/cooling_device0/type": "pwm-fan", "thermal/cooling_device0/cur_state": "3",
    }  # fmt: skip
    found = read_health(paths, sensors(tmp_path, said))
    assert (found.battery_percent, found.celsius, found.throttled) == (64, 72, UNKNOWN)
    for kind, state, throttled in (("Processor", "0", 0), ("cpufreq-cpu0", "0", 0), ("17000000.gpu-devfreq", "2", 1)):
        said |= {"thermal/cooling_device1/type": kind, "thermal/cooling_device1/cur_state": state}
        assert read_health(paths, sensors(tmp_path, said)).throttled == throttled
    cold = read_health(paths, sensors(tmp_path, {f"thermal/thermal_zone{zone}/temp": "-5000" for zone in (0, 1)}))
    assert cold.celsius == 0


def test_the_store_tells_counts_and_the_day_of_the_oldest_recording_that_is_not_learned(tmp_path: Path) -> None:
    clock, paths, none = Clock(), ClientPaths(tmp_path), tmp_path / "none"
    with opened(tmp_path, clock=clock) as store:
        agree(store)
        keep_tally(paths, None, 0, store)
        found = read_health(paths, none)
        assert (found.minutes, found.labelled, found.skipped, found.expired) == (0, 0, 0, 0)
        assert (found.oldest_day, found.camera_seen, found.error) == (UNKNOWN, UNKNOWN, 0)

        first = record(store, tmp_path / "memory", *[b"x"] * 7)  # 70 s
        day = clock.at.utc_us // DAY_US
        spans = [store.add_span(first, at * SECOND, (at + 5) * SECOND) for at in (0, 10, 20, 30)]
        store.label(spans[0].id, Label("happiness"))
        store.label(spans[1].id, Label("skip"))
        store.label(spans[2].id, Label("sadness"))
        store.label(spans[2].id, Label("other", 3))  # counted once
        store.ask(spans[3].id)
        clock.turn(24 * 3)
        second = record(store, tmp_path / "memory", *[b"y"] * 5)
        store.waiting_prompts()
        keep_tally(paths, True, 139, store)
        found = read_health(paths, none)
        assert (found.minutes, found.labelled, found.skipped, found.expired) == (2, 2, 1, 1)
        assert (found.oldest_day, found.camera_seen, found.error) == (day, 1, 139)

        store.discard_span(spans[3].id)
        [lesson] = store.to_learn().lessons
        store.mark_learned([(lesson.span, lesson.label_id)], TRAINING)
        keep_tally(paths, False, 0, store)
        assert read_health(paths, none).oldest_day == day + 3
        store.delete_raw(second)
        keep_tally(paths, False, 0, store)
        found = read_health(paths, none)
        assert (found.minutes, found.oldest_day, found.camera_seen) == (1, UNKNOWN, 0)

    written = paths.health.read_text()
    assert all(type(value) is int for value in json.loads(written).values())
    assert not re.search('happ|sad|other|skip"|20[0-9]{2}-', written)
    assert stat.S_IMODE(paths.health.stat().st_mode) == 0o600
    assert paths.health in paths.of_wearer


def test_a_recording_of_a_wrong_clock_has_no_day(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock=clock) as store:
        agree(store)
        clock.at = type(clock.at)(1000, 5, "+00:00", "unsynchronised")
        record(store, tmp_path / "memory", b"x")
        assert store.progress().oldest_day is None


def test_a_tally_that_is_old_or_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    paths, none = ClientPaths(tmp_path), tmp_path / "none"
    with opened(tmp_path) as store:
        keep_tally(paths, True, 0, store)
    said = json.loads(paths.health.read_text())
    assert read_health(paths, none).camera_seen == 1
    for other in (
        json.dumps(said | {"day": said["day"] - 2}),
        json.dumps(said | {"day": said["day"] + 2}),
        json.dumps(said | {"humour": 1}),
        json.dumps(said | {"minutes": "many"}),
        "[1, 2]",
        "{",
    ):
        paths.health.write_text(other)
        assert read_health(paths, none).camera_seen == UNKNOWN, other


def test_a_wearable_that_runs_writes_its_tally_down(tmp_path: Path) -> None:
    async def scene() -> None:
        for setting_up in (True, False):
            wearable, stopping = Wearable(tmp_path, "simulated", StoreRules("1"), ConsentTexts(None)), asyncio.Event()
            await wearable.open()
            if setting_up:
                await wearable.set_up(None, (), read_consent_text(None, "en"))
            assert wearable.paths is not None
            running = asyncio.create_task(wearable.run(stopping))
            ends = time.monotonic() + 60
            while not wearable.paths.health.exists():
                assert time.monotonic() < ends and not running.done()
                await asyncio.sleep(0.02)
            found = read_health(wearable.paths, tmp_path / "none")
            assert (found.minutes, found.error, found.camera_seen) == (0, 0, UNKNOWN)
            wearable.paths.health.unlink()
            stopping.set()
            await asyncio.wait_for(running, 60)

    asyncio.run(scene())


def test_a_learning_process_that_fails_is_the_last_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\nexit 7\n")
    fails.chmod(0o755)
    monkeypatch.setattr("client.wearable.learning.sys", SimpleNamespace(executable=str(fails)))
    monkeypatch.setattr("client.wearable.learning.LOOK_S", 0.02)
    monkeypatch.setattr("client.wearable.TALLY_S", 0.02)

    async def scene() -> None:
        folder = tmp_path / "wearable"
        wearable, stopping = Wearable(folder, "simulated", StoreRules("1"), ConsentTexts(None)), asyncio.Event()
        await wearable.open()
        await wearable.set_up(None, ("capture", "labels", "learning"), read_consent_text(None, "en"))
        paths = wearable.paths
        assert paths is not None
        import_model(paths, tiny_model(tmp_path / "tiny.safetensors"))

        def label_a_span(store: Store) -> None:
            session = record(store, tmp_path / "memory", b"x")
            store.label(store.add_span(session, SECOND, 5 * SECOND).id, Label("fear"))

        await wearable.kept(label_a_span)
        running = asyncio.create_task(wearable.run(stopping))
        ends = time.monotonic() + 120
        while read_health(paths, tmp_path / "none").error != 7:
            assert time.monotonic() < ends and not running.done()
            await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.wait_for(running, 60)

    asyncio.run(scene())


def tiny_model(file: Path) -> Path:
    """An untrained mcoe-tiny that can recognise here."""
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    write_model(file, tensors, ModelCard(generation, "a test"))
    return file
