"""The lesson book of a wearable whose wearer changes their mind while it is written: real parts, and no camera."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from client.consent_text import ConsentTexts, read_consent_text
from client.lesson_book import LessonBook
from client.model_import import import_model
from client.settings import ClientSettings
from client.wearable import Wearable, learning
from mcoe_model.files import write_bytes
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build

TEXT = read_consent_text(None, "en")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_model(path, tensors, ModelCard(generation, "a test"))
    return path


class Slow:
    """Writing the lesson book, which takes until ``may_end``."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, folder: Path, key: bytes, *others: object) -> None:
        self.begun.set()
        assert self.may_end.wait(120)
        LessonBook(folder, key, "0a" * 8).write_memory(b"of the wearer's clips")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    monkeypatch.setattr(learning, "keep_lessons", made)
    monkeypatch.setattr(learning, "LOOK_S", 0.05)
    yield made
    made.may_end.set()


@pytest.mark.parametrize("act", [lambda one: one.withdraw("learning"), Wearable.forget])
def test_nothing_that_was_made_for_learning_outlives_the_wearers_word(
    tmp_path: Path, model: Path, slow: Slow, act: Callable[[Wearable], Awaitable[None]]
) -> None:
    async def scene() -> None:
        wearable = Wearable(tmp_path, "none", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        await wearable.set_up(None, ("capture", "labels", "learning"), TEXT)
        assert wearable.paths is not None
        paths = wearable.paths
        import_model(paths, model)
        learns = asyncio.create_task(wearable.keep_learning())
        try:
            await asyncio.to_thread(slow.begun.wait, 120)
            acting = asyncio.ensure_future(act(wearable))
            await asyncio.sleep(0.3)  # where it does not wait, it is over before the book is written
            slow.may_end.set()
            await acting
            await asyncio.sleep(0.3)  # several looks
            assert not paths.lessons.exists() and not learns.done()
        finally:
            learns.cancel()
            with suppress(asyncio.CancelledError):
                await learns

    asyncio.run(scene())


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    async def scene() -> None:
        first = Wearable(tmp_path, "none", ClientSettings().rules(), ConsentTexts(None))
        await first.open()
        await first.set_up(None, ("capture", "labels", "learning"), TEXT)
        assert first.paths is not None
        torn = first.paths.models / f".{'0a' * 32}.safetensors.k3x_9qzz"
        write_bytes(torn, b"a hundred megabytes")
        await Wearable(tmp_path, "none", ClientSettings().rules(), ConsentTexts(None)).open()
        assert not torn.exists() and first.paths.models.exists()

    asyncio.run(scene())


def test_what_was_made_for_learning_goes_at_the_next_start_if_the_consent_went_meanwhile(tmp_path: Path) -> None:
    async def scene() -> None:
        wearable = Wearable(tmp_path, "none", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        await wearable.set_up(None, ("capture", "labels", "learning"), TEXT)
        assert wearable.paths is not None
        book = LessonBook(wearable.paths.lessons, bytes(32), "0a" * 8)
        book.write_memory(b"of the wearer's clips")
        await wearable.kept(lambda store: store.withdraw("learning"))  # killed before anything else
        learns = asyncio.create_task(wearable.keep_learning())
        ends = asyncio.get_running_loop().time() + 120
        while wearable.paths.lessons.exists():
            assert asyncio.get_running_loop().time() < ends
            await asyncio.sleep(0.02)
        learns.cancel()

    asyncio.run(scene())
