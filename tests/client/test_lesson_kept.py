"""What was learned is served and counted, unless another model came meanwhile. Store and models are real."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from session_times import record
from test_generations import SECOND, at_rest, looking, until  # noqa: F401 (a fixture)
from toy_camera import write_toy_model

from client.lesson_book import Result, ResultFile, clip_name
from client.model_import import import_model
from client.own_models import LEARNED_HERE, model_path, seal_model
from client.running import Running, RunningModel
from client.sessions import Label, Store
from client.wearable import Wearable
from mcoe_model.model_file import model_bytes, read_card, read_model, write_model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "base.safetensors", 1)


def learned_from(wearable: Wearable, base: str) -> str:
    """A model as the learning process leaves it behind; its SHA-256."""
    assert wearable.paths is not None and wearable.lessons_key is not None
    tensors, card = read_model(model_path(wearable.paths.models, base))
    content = model_bytes(tensors, card.child_of(base, LEARNED_HERE, {"fleet_model": base}))
    return seal_model(wearable.paths.models, wearable.lessons_key, content, base)


async def lesson(wearable: Wearable, folder: Path, base: str) -> tuple[Result, ResultFile]:
    """Two labelled sessions, and what the learning process says of them; the file waits for the wearable."""

    def label(store: Store) -> tuple[str, ...]:
        for _ in range(2):
            session = record(store, folder / "memory", bytes(100))
            store.label(store.add_span(session, 0, 5 * SECOND).id, Label("fear"))
        return tuple(clip_name(one.span, one.label_id) for one in store.to_learn().lessons)

    clips = await wearable.kept(label)
    assert wearable.paths is not None and wearable.lessons_key is not None
    generation = read_card(model_path(wearable.paths.models, base)).generation.id
    result = Result(generation, clips, base, learned_from(wearable, base), "learned", 2, 1.0)
    return result, ResultFile(wearable.paths.lessons, wearable.lessons_key)


def another(folder: Path, base: Path) -> Path:
    """The fleet's next model, of the same generation."""
    tensors, card = read_model(base)
    path = folder / "another.safetensors"
    write_model(path, tensors, replace(card, origin="a later round"))
    return path


async def trainings(wearable: Wearable) -> list[str | None]:
    return [one.model_sha256 for one in await wearable.kept(lambda store: store.trainings())]


@pytest.mark.parametrize("worse", [False, True])
def test_what_began_from_a_model_that_another_has_replaced_is_learned_anew(
    tmp_path: Path, base: Path, worse: bool
) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            assert wearable.paths is not None
            began = import_model(wearable.paths, base).sha256
            running = Running(wearable.paths.running)
            result, waits = await lesson(wearable, tmp_path, began)
            came = import_model(wearable.paths, another(tmp_path, base)).sha256
            if worse:  # by a verdict on the held-out clips
                hits = tuple(number % 2 == 0 for number in range(40))
                result = replace(result, labels=(0, 3) * 20, before=(True,) * 40, after=hits)
            waits.write(result)
            await until(lambda: waits.read() is None and wearable.learning.waiting == 2)
            assert await trainings(wearable) == [] and result.model_sha256 is not None
            assert running.read() == RunningModel(came, before=began, trial=running.read().trial)
            assert not model_path(wearable.paths.models, result.model_sha256).exists()

            model = learned_from(wearable, came)
            again = replace(result, base_sha256=came, model_sha256=model, labels=(), before=(), after=())
            waits.write(again)
            await until(lambda: waits.read() is None and wearable.learning.waiting == 0)
            assert await trainings(wearable) == [again.model_sha256] == [running.read().runs]

    asyncio.run(scene())


def test_how_many_held_out_clips_are_recognised_before_and_after_is_stored_and_shown(
    tmp_path: Path, base: Path
) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            assert wearable.paths is not None
            began = import_model(wearable.paths, base).sha256
            result, waits = await lesson(wearable, tmp_path, began)
            before, after = (True, False, False, True, False), (True, True, False, True, True)
            waits.write(replace(result, labels=(0, 3, 3, 0, 2), before=before, after=after))
            await until(lambda: wearable.learning.last is not None)
            [training] = await wearable.kept(lambda store: store.trainings())
            assert training.scores == {"clips": 5, "before": 2, "after": 4}
            last = (await wearable.status()).learning.last
            assert last is not None and (last.clips, last.before, last.after) == (5, 2, 4)

    asyncio.run(scene())


def test_killed_when_it_is_served_and_not_counted_yet_it_counts_once(tmp_path: Path, base: Path) -> None:
    async def scene() -> None:
        async with looking(tmp_path / "wearable") as wearable:
            assert wearable.paths is not None
            began = import_model(wearable.paths, base).sha256
            running = Running(wearable.paths.running)
            result, waits = await lesson(wearable, tmp_path, began)
            assert result.model_sha256 is not None
            running.take_lesson(result.model_sha256, began, worse=False, trial=None)
            came = import_model(wearable.paths, another(tmp_path, base)).sha256  # before the next start
            for _ in range(2):
                waits.write(result)
                await until(lambda: waits.read() is None)
                assert await trainings(wearable) == [result.model_sha256]
                assert (running.read().runs, running.read().before) == (came, result.model_sha256)
            assert (await wearable.kept(lambda store: store.to_learn())).lessons == ()

    asyncio.run(scene())
