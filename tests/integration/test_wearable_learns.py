"""A wearer records and labels, and the wearable's model becomes the wearer's own: real processes, a simulated eye."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from real_wearable import untrained_model
from test_wearable_facade import PASSPHRASE, TEXT, running, sees, until

from client.lesson_book import HELD_OUT, LessonBook, clip_name, clips_of_generation, generations, is_held_out
from client.model_import import import_model
from client.own_models import LEARNED_HERE, is_own, open_card, open_model
from client.protocol_file import read_protocol, run_protocol
from client.running import Running
from client.serving import served_model
from client.wearable import Wearable, learning
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.model_file import model_bytes, read_card

#: Six spans, the fourth is held out. Where a busy machine's lateness lets two overlap they say the same, and the long
#: pause is between those that do not: else they would contradict each other, and not be learned.
SESSION = "onset_s,duration_s,stimulus,label\n" + "".join(
    f"{0.2 + 0.9 * number + 3 * (number > 2):.1f},0.6,film,{'fear' if number > 2 else 'happiness'}\n"
    for number in range(6)
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "LOOK_S", 0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


async def trainings(wearable: Wearable) -> list[tuple[str, int]]:
    return [(one.outcome, one.spans) for one in await wearable.kept(lambda store: store.trainings())]


async def until_learned(wearable: Wearable, times: int) -> None:
    ends = time.monotonic() + 600
    while len(await trainings(wearable)) < times:
        assert time.monotonic() < ends, "it is not learned"
        await asyncio.sleep(0.2)
    assert wearable.paths is not None
    result = wearable.paths.lessons / "result.sealed"
    await until(lambda: not result.exists())  # the store has it first, and then the model is served


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
            plain = _as_an_earlier_version_left_it(wearable)
        async with running(tmp_path) as wearable:
            assert served_model(wearable.paths, unlocked=False) == wearable._served()
            await wearable.unlock(PASSPHRASE)
            path = wearable._served()
            assert path is not None and is_own(path) and path.stem == plain.stem and not plain.exists()
            await until(lambda: wearable.learning.last is not None)
            await asyncio.sleep(2)  # several looks
            assert await trainings(wearable) == [("learned", first), ("learned", second)], "nothing is learned twice"
            await _forgets_what_was_discarded(wearable, session, second)
            newer = untrained_model(tmp_path / "newer.safetensors", seed=2)
            await _learns_anew_in_a_new_generation(wearable, newer, second)

    asyncio.run(scene())


async def _is_the_wearers_own(wearable: Wearable, base: str, session: str, spans: int) -> None:
    assert wearable.paths is not None
    assert await trainings(wearable) == [("learned", spans)]
    path = served_model(wearable.paths, unlocked=True)
    assert path is not None and path.stem != base
    card = open_card(path, wearable.lessons_key)
    assert is_own(path) and (card.origin, card.parent_sha256) == (LEARNED_HERE, base)
    assert Running(wearable.paths.running).read().before == base

    def recognises() -> str:
        found = wearable.recognise.prediction(0, time.monotonic_ns())
        return found.model_sha256 if found is not None else ""

    assert (await wearable.kept(lambda store: store.to_learn())).lessons == ()
    found = await wearable.session(session)
    assert all(span.change == "next learning" for span in found.spans)
    await until(lambda: wearable.learning.last is not None and wearable.learning.last.spans == spans)
    await until(lambda: recognises() == path.stem)
    last = wearable.learning.last
    assert last is not None and last.clips == len(found.spans) - spans == 1 and wearable.learning.state == "nothing"


def _as_an_earlier_version_left_it(wearable: Wearable) -> Path:
    """The wearer's own model lies plain, as it was kept once."""
    path = wearable._served()
    assert path is not None and is_own(path)
    plain = path.with_suffix(".safetensors")
    tensors, card = open_model(path, wearable.lessons_key)
    plain.write_bytes(model_bytes(tensors, card))
    path.unlink()
    return plain


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
    assert wearable.paths is not None
    model = served_model(wearable.paths, unlocked=True)
    assert model is not None
    key = wearable.lessons_key
    assert key is not None
    book = LessonBook(wearable.paths.lessons, key, open_card(model, key).generation.id)

    def remembered() -> set[str]:
        content = book.read_memory()
        return set() if content is None else set(ReplayMemory.from_bytes(content, generation=None).names)

    assert len(remembered()) == len(book.waiting) > left and len(book.held_out) >= 1
    await wearable.discard(session)
    standing = await wearable.kept(lambda store: store.standing())
    await until(lambda: len(remembered()) == left)
    assert {*remembered(), *book.held_out} == {clip_name(*clip) for clip in standing}


async def _learns_anew_in_a_new_generation(wearable: Wearable, newer: Path, spans: int) -> None:
    """What is recorded still is encoded anew by the new model's backbones, and learned; the old features are gone."""
    paths, key = wearable.paths, wearable.lessons_key
    assert paths is not None and key is not None
    [before], standing = generations(paths.lessons), await wearable.kept(lambda store: store.standing())
    import_model(paths, newer)
    await until_learned(wearable, 3)
    [after] = generations(paths.lessons)
    assert after == read_card(newer).generation.id != before
    assert (await trainings(wearable))[2] == ("learned", spans)
    assert clips_of_generation(paths.lessons, key, after) == {clip_name(*clip) for clip in standing}
    book = LessonBook(paths.lessons, key, after)
    assert len(book.waiting) == spans and len(book.held_out) == len(standing) - spans == 1
    await until(lambda: wearable._served() is not None and is_own(wearable._served()))
    served = wearable._served()
    assert served is not None and open_card(served, key).generation.id == after
    assert (await wearable.kept(lambda store: store.lost())) == 0
