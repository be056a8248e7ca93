"""A new generation of models: what is recorded still is learned anew, the rest is counted and goes. Store, lesson book
and models are real; that clips are encoded anew by a real process is in `test_wearable_learns`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from session_times import record
from toy_camera import write_toy_model

from client.consent_text import ConsentTexts
from client.enrolment import ClientPaths
from client.gates import Sensors
from client.lesson_book import Clip, LessonBook, clip_name, generations
from client.model_import import import_model
from client.running import Running
from client.sessions import Label, Store, Training
from client.settings import ClientSettings
from client.wearable import Wearable, learning
from mcoe_model.learning.replay import Exemplar, ReplayMemory
from mcoe_model.model_file import read_card

SECOND = 1_000_000
TEXTS = ConsentTexts(None)
MEMBER = 'address = "localhost:1"\nclient_id = "w1"\nclips = ""\nsubject = ""\n'
FEATURES = {("frame", "any"): np.ones((20, 8), np.float32), ("event", "any"): np.ones((20, 8), np.float32)}


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks often, and never learns: it is too hot."""
    monkeypatch.setattr(learning, "LOOK_S", 0.05)
    monkeypatch.setattr(learning, "read_sensors", lambda system: Sensors(True, 80, 90.0, False))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Returns when it has looked three times more."""
    seen = itertools.count()
    real, last = learning.served_model, [0]

    def counted(paths: ClientPaths, *, unlocked: bool) -> Path | None:
        last[0] = next(seen)
        return real(paths, unlocked=unlocked)

    monkeypatch.setattr(learning, "served_model", counted)

    async def several() -> None:
        before = last[0]
        await until(lambda: last[0] > before + 3)

    return several


@asynccontextmanager
async def looking(folder: Path) -> AsyncIterator[Wearable]:
    """A wearable that looks for something to learn."""
    wearable = Wearable(folder, "simulated:3", ClientSettings().rules(), TEXTS)
    await wearable.open()
    if wearable.stage == "new":
        await wearable.set_up(None, ("capture", "labels", "learning", "updates"), TEXTS.text("en"))
    task = asyncio.create_task(wearable.keep_learning())
    try:
        yield wearable
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert wearable.store is not None
        await wearable.kept(lambda store: store.close())


async def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


async def comes(wearable: Wearable, file: Path) -> str:
    """A model is served from now on; its generation."""
    assert wearable.paths is not None
    import_model(wearable.paths, file)
    return read_card(file).generation.id


async def learned(wearable: Wearable, folder: Path, generation: str) -> list[str]:
    """Four sessions of a labelled span, learned by this generation, and their clips.

    The first awaits a round, of two there is a window in the memory, and the fourth is held out.
    """

    def do(store: Store) -> list[str]:
        for _ in range(4):
            session = record(store, folder / "memory", bytes(100))
            store.label(store.add_span(session, 0, 5 * SECOND).id, Label("fear"))
        found = [(one.span, one.label_id) for one in store.to_learn().lessons]
        store.mark_learned(found, Training(0, "UTC", "b" * 64, "c" * 64, 4, "learned", 1.0, None))
        return [clip_name(*one) for one in found]

    clips = await wearable.kept(do)
    assert wearable.paths is not None and wearable.lessons_key is not None
    book = LessonBook(wearable.paths.lessons, wearable.lessons_key, generation)
    today = int(time.time() // 86_400)
    for name in (clips[0], clips[3]):  # the fourth is held out
        book.put(Clip(name, 2, today, FEATURES))
    ends, logits = np.ones((4, 8), np.float16), np.ones(7, np.float32)
    kept = [Exemplar(name, 2, "unknown", today, ends, logits) for name in clips[1:3]]
    book.write_memory(ReplayMemory(generation).add(kept).to_bytes())
    assert (len(book.waiting), len(book.held_out)) == (1, 1)
    return clips


async def delete_recording_of(wearable: Wearable, clip: str) -> None:
    span = int(clip.split("-")[0])
    await wearable.kept(lambda store: store.delete_raw(store.span(span).session))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "first.safetensors", 1)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "second.safetensors", 2)


def test_what_is_recorded_still_is_learned_anew_and_the_rest_is_counted_and_goes(
    tmp_path: Path, first: Path, second: Path, looks: Callable[[], Awaitable[None]]
) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            clips = await learned(wearable, tmp_path, await comes(wearable, first))
            await delete_recording_of(wearable, clips[1])
            await looks()
            assert (wearable.learning.waiting, wearable.learning.lost) == (0, 0)
            assert wearable.learning.held_out == 1
            await comes(wearable, second)
            await until(lambda: (wearable.learning.waiting, wearable.learning.lost) == (3, 1))
            assert any("90 degrees" in why for why in wearable.learning.closed)
            assert wearable.paths is not None and generations(wearable.paths.lessons) == ()
        async with looking(tmp_path / "wearable") as wearable:
            await until(lambda: (wearable.learning.waiting, wearable.learning.lost) == (3, 1))
            await delete_recording_of(wearable, clips[0])  # its time is up before it could be encoded
            await until(lambda: (wearable.learning.waiting, wearable.learning.lost) == (2, 2))

    asyncio.run(scene())


def test_without_the_consent_to_labels_nothing_is_learned_and_nothing_lost(tmp_path: Path, first: Path) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            generation = await comes(wearable, first)
            clips = await learned(wearable, tmp_path, generation)
            paths, key = wearable.paths, wearable.lessons_key
            assert paths is not None and key is not None
            book, ended = LessonBook(paths.lessons, key, generation), list[bool]()
            wearable.fleet.kill = lambda: ended.append(wearable._greet_fleet()["labels"])  # type: ignore[method-assign]

            def another(store: Store) -> None:
                session = record(store, tmp_path / "memory", bytes(100))
                store.label(store.add_span(session, 0, 5 * SECOND).id, Label("fear"))

            await wearable.kept(another)
            await until(lambda: wearable.learning.waiting == 1)
            await wearable.withdraw("labels")
            await until(lambda: wearable.learning.waiting == 0)
            assert (book.waiting, book.held_out) == ((clips[0],), (clips[3],))
            await wearable.discard_span(int(clips[3].split("-")[0]))  # what the wearer deletes goes all the same
            await until(lambda: book.held_out == ())
            await wearable.consent("labels", TEXTS.text("en"))
            await until(lambda: wearable.learning.waiting == 1)
            assert book.waiting == (clips[0],) and ended == [False, True]

    asyncio.run(scene())


def test_as_long_as_the_fleets_tasks_are_of_the_old_generation_its_clips_stay(
    tmp_path: Path, first: Path, second: Path, looks: Callable[[], Awaitable[None]]
) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            generation = await comes(wearable, first)
            await learned(wearable, tmp_path, generation)
            assert wearable.paths is not None
            wearable.paths.membership.write_text(MEMBER)
            running = Running(wearable.paths.running)
            resident = running.read().runs
            await comes(wearable, second)
            newer = running.read().runs
            for known in ("", resident):  # before the fleet's part has said anything, and then
                running.work_with(known)
                await looks()
                assert generations(wearable.paths.lessons) == (generation,) and wearable.learning.waiting == 0
            running.work_with(newer)
            await until(lambda: wearable.learning.waiting == 4)
            assert generations(wearable.paths.lessons) == ()

    asyncio.run(scene())


def test_ending_halfway_loses_nothing(
    tmp_path: Path, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = list[str]()

    def fails(folder: Path, generation: str) -> None:
        failed.append(generation)
        raise OSError

    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            generation = await comes(wearable, first)
            await learned(wearable, tmp_path, generation)
            with monkeypatch.context() as broken:
                broken.setattr(learning, "forget_generation", fails)
                await comes(wearable, second)
                await until(lambda: len(failed) > 1)
                assert wearable.paths is not None and generations(wearable.paths.lessons) == (generation,)
            await until(lambda: wearable.learning.waiting == 4)
            left = wearable.paths.lessons / ".0123456789abcdef"
            left.mkdir()
        async with looking(tmp_path / "wearable") as wearable:
            await until(lambda: not left.exists())
            assert (await wearable.kept(lambda store: store.lost())) == 0

    asyncio.run(scene())
