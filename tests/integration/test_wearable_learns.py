"""A wearer records and labels, and the wearable's model becomes the wearer's own: real processes, a simulated eye."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_wearable_facade import PASSPHRASE, TEXT, running, sees, until

from client.keys import DeviceKey
from client.lesson_book import HELD_OUT, LessonBook, clip_name, is_held_out
from client.model_import import import_model
from client.protocol_file import read_protocol, run_protocol
from client.running import Running
from client.serving import LEARNED_HERE, served_model
from client.wearable import Wearable, learning
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, read_card, write_model
from mcoe_model.networks import build

#: Six spans with pauses, so that a busy machine's lateness does not let them overlap; the fourth is held out.
SESSION = "onset_s,duration_s,stimulus,label\n" + "".join(
    f"{0.2 + 0.9 * number:.1f},0.6,film,{'fear' if number % 2 else 'happiness'}\n" for number in range(6)
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "LOOK_S", 0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_model(path, tensors, ModelCard(generation, "a test"))
    return path


async def trainings(wearable: Wearable) -> list[tuple[str, int]]:
    return [(one.outcome, one.spans) for one in await wearable.kept(lambda store: store.trainings())]


async def until_learned(wearable: Wearable, times: int) -> None:
    ends = time.monotonic() + 600
    while len(await trainings(wearable)) < times:
        assert time.monotonic() < ends, "it is not learned"
        await asyncio.sleep(0.2)


def state(pid: int) -> str:
    """Of a process, as proc(5) has it; T: it stands still; empty: it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def recorded(wearable: Wearable) -> tuple[str, int]:
    """A session, and how many spans it has to be learned: on a busy machine not all are seen to their end."""
    session = await run_protocol(wearable, read_protocol(SESSION))
    spans = (await wearable.session(session)).spans
    assert len(spans) >= HELD_OUT
    return session, sum(not is_held_out(span.id) for span in spans)


def test_what_is_recorded_and_labelled_is_learned_once(tmp_path: Path, model: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(PASSPHRASE, ("capture", "labels", "learning"), TEXT)
            assert wearable.paths is not None
            imported = import_model(wearable.paths, model)
            await until(sees(wearable))
            session, first = await recorded(wearable)
            await until_learned(wearable, 1)
            await _is_the_wearers_own(wearable, imported.sha256, session, first)
            second = await _stands_still_and_survives(wearable)
        async with running(tmp_path) as wearable:
            await wearable.unlock(PASSPHRASE)
            await until(lambda: wearable.learning.last is not None)
            await asyncio.sleep(2)  # several looks
            assert await trainings(wearable) == [("learned", first), ("learned", second)], "nothing is learned twice"
            await _forgets_what_was_discarded(wearable, session, second)

    asyncio.run(scene())


async def _is_the_wearers_own(wearable: Wearable, base: str, session: str, spans: int) -> None:
    assert wearable.paths is not None
    assert await trainings(wearable) == [("learned", spans)]
    path = served_model(wearable.paths)
    assert path is not None and path.stem != base
    card = read_card(path)
    assert (card.origin, card.parent_sha256) == (LEARNED_HERE, base)
    assert Running(wearable.paths.running).read().before == base
    assert (await wearable.kept(lambda store: store.to_learn())).lessons == ()
    found = await wearable.session(session)
    assert all(span.learned for span in found.spans)
    await until(lambda: wearable.learning.last is not None and wearable.learning.last.spans == spans)
    last = wearable.learning.last
    assert last is not None and last.clips == len(found.spans) - spans == 1 and wearable.learning.state == "nothing"


async def _stands_still_and_survives(wearable: Wearable) -> int:
    """While a recording runs nothing is learned; killed, it begins again; and all of it counts once: so many spans."""
    _, spans = await recorded(wearable)
    await until(lambda: wearable._learner is not None)
    assert wearable._learner is not None
    pid = wearable._learner.pid
    session = await wearable.start_recording()
    began = time.monotonic()
    await until(lambda: state(pid) == "T")
    await until(lambda: wearable.learning.state == "paused" and wearable.learning.closed == ("a recording runs",))
    assert time.monotonic() - began < 30, "a second, where the machine has time for it"
    await wearable.stop_recording()
    await wearable.discard(session)
    await until(lambda: state(pid) != "T")
    with suppress(ProcessLookupError):  # it may have been quick
        os.kill(pid, signal.SIGKILL)
    await until_learned(wearable, 2)
    return spans


async def _forgets_what_was_discarded(wearable: Wearable, session: str, left: int) -> None:
    """A discarded session is neither in the memory nor among the clips; the other one is."""
    assert wearable.paths is not None and isinstance(wearable._key, DeviceKey)
    model = served_model(wearable.paths)
    assert model is not None
    book = LessonBook(wearable.paths.lessons, wearable._key.derive("lessons"), read_card(model).generation.id)

    def remembered() -> set[str]:
        content = book.read_memory()
        return set() if content is None else set(ReplayMemory.from_bytes(content, generation=None).names)

    assert len(remembered()) == len(book.waiting) > left and len(book.held_out) >= 1
    await wearable.discard(session)
    standing = await wearable.kept(lambda store: store.standing())
    await until(lambda: len(remembered()) == left)
    assert {*remembered(), *book.held_out} == {clip_name(*clip) for clip in standing}
