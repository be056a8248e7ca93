"""What the page does with a wearable, in this process: real children, a simulated eye, no page."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from client.comparison import Comparison
from client.consent_text import ConsentText, ConsentTexts, read_consent_text
from client.page.wearable_protocol import ModelChoice, Preview
from client.protocol_file import read_protocol, run_protocol
from client.running import Running
from client.segment_files import left_over
from client.sessions import Store
from client.settings import ClientSettings
from client.wearable import Wearable
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import (
    ConsentMissing,
    DataInvalid,
    DataMissing,
    DiskFull,
    LabelFirst,
    Locked,
    McoeError,
    OutputExists,
    RecordingRuns,
)
from simulations.fleet.processes import NO_SENSORS

TEXT = read_consent_text(None, "en")
PASSPHRASE = "correct horse"


@asynccontextmanager
async def running(folder: Path, texts: Path | None = None, **settings: float) -> AsyncIterator[Wearable]:
    made = ClientSettings(system=str(NO_SENSORS), **settings)  # type: ignore[arg-type]
    wearable = Wearable(folder, "simulated:3", made.rules(), ConsentTexts(texts), made.check_in_rules)
    stopping = asyncio.Event()
    await wearable.open()
    task = asyncio.create_task(wearable.run(stopping))
    try:
        yield wearable
    finally:
        stopping.set()
        await asyncio.wait_for(task, 180)


async def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


def sees(wearable: Wearable) -> Callable[[], bool]:
    return lambda: wearable.capture.camera is not None and wearable.capture.camera.seen


def written(wearable: Wearable) -> int:
    """The bytes of plain segments; a second of recording is some 2 MB, of which the writer holds back a little."""
    return sum(path.stat().st_size for _, _, _, path in left_over(wearable.plain))


def test_from_the_first_visit_to_a_recording_that_is_looked_at(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            assert (await wearable.status()).stage == "new"
            with pytest.raises(DataMissing, match="set this wearable up"):
                await wearable.history()
            recovery = await wearable.set_up(PASSPHRASE, ("capture", "labels"), TEXT)
            assert recovery is not None
            with pytest.raises(OutputExists):
                await wearable.set_up(PASSPHRASE, ("capture",), TEXT)
            await until(sees(wearable))
            await _fitted(wearable)
            await _looked_at(wearable)
            await _driven(wearable)
            await _locked(wearable, recovery)
        async with running(tmp_path) as wearable:
            assert (await wearable.status()).stage == "locked"
            await wearable.unlock(PASSPHRASE)
            assert wearable.geometry == Geometry(x=20, y=20, side=200, eye="left") and wearable.fitted
            [session] = await wearable.history()
            await wearable.discard(session.id)
            assert await wearable.history() == [] and wearable.known.used_bytes == 0

    asyncio.run(scene())


async def _fitted(wearable: Wearable) -> None:
    """The camera is looked through and fitted, and what is seen stays as long as it is allowed."""
    await until(lambda: wearable.capture.preview() is not None)
    first = await wearable.preview()
    assert first is not None and first.frame.shape == first.event.shape == (260, 346)
    await until(lambda: (wearable.capture.preview() or first).number >= first.number + 10)
    await wearable.fit(Geometry(x=20, y=20, side=200, eye="left"))
    states = [status async for status in _some(wearable)]
    assert states[-1].fitted and states[-1].geometry.side == 200


async def _some(wearable: Wearable) -> AsyncIterator:  # type: ignore[type-arg]
    """Two states of a camera that gives more all the time."""
    count = 0
    async for status in wearable.changes():
        yield status
        count += 1
        if count == 2:
            return


async def _looked_at(wearable: Wearable) -> None:
    """A recording, a part of which is replayed, marked, labelled, trimmed and labelled anew."""
    session = await wearable.start_recording()
    with pytest.raises(RecordingRuns):
        await wearable.start_recording()
    with pytest.raises(RecordingRuns):
        await wearable.fit(Geometry())
    await asyncio.sleep(2.0)
    before = await wearable.marker("blink", "stimulus")
    assert await wearable.marker("blink", "stimulus") >= before
    assert await wearable.stop_recording() == session
    found = await wearable.session(session)
    [span] = found.spans
    assert found.state == "whole" and span.start_us == 0 and span.end_us == round(found.seconds * 1e6)
    pairs = await wearable.preview_span(session, 300_000, 1_300_000)
    assert 10 < len(pairs) < 40 and all(pair.frame.shape == (90, 90) for pair in pairs)
    assert any(np.any(pair.event != 128) for pair in pairs)
    with pytest.raises(DataInvalid, match="at most 30 seconds"):
        await wearable.preview_span(session, 0, 30_000_001)
    assert [prompt.span for prompt in await wearable.prompts()] in ([span.id], [])  # none in the quiet hours
    await wearable.trim(span.id, 200_000, 1_200_000)
    labelled = await wearable.label(span.id, "surprise", 4)
    assert (labelled.label, labelled.intensity, labelled.start_us) == ("surprise", 4, 200_000)
    assert (await wearable.undo(span.id)).label is None and await wearable.prompts() == []
    second = await wearable.add_span(session, 0, 600_000, "form 1")
    assert await wearable.add_span(session, 0, 600_000, "form 1") == second
    for _ in range(2):  # the second is the same form, delivered again
        await wearable.label(second, "fear", 2, "form 2")
        assert (await wearable.trim(second, 0, 700_000, "form 3")).versions == 2
    assert (await wearable.label(second, "skip", None)).label == "skip"
    kept = (await wearable.session(session)).raw_until
    await wearable.keep_more(session)
    after = (await wearable.session(session)).raw_until
    assert kept is not None and after is not None and (after - kept).days == 14


async def _driven(wearable: Wearable) -> None:
    """A session that a file drives, and that is ended before the file is: what was shown whole is labelled."""
    text = "onset_s,duration_s,stimulus,label\n0,0.6,one,fear\n0.7,20,two,angry\n"
    driving = asyncio.create_task(run_protocol(wearable, read_protocol(text)))
    await until(lambda: wearable.under_way is not None)
    driven = wearable.under_way.session
    while len(await wearable.kept(lambda store: store.markers(driven))) < 2:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2.0)  # "one" was shown whole
    ended = await wearable.stop_recording()
    assert await asyncio.wait_for(driving, 180) == ended == driven
    found = await wearable.session(ended)
    assert [span.label for span in found.spans] == ["fear"] and found.state == "whole"
    assert await wearable.kept(lambda store: [one.text for one in store.markers(ended)]) == ["one", "two"]
    await wearable.discard(ended)
    driving = asyncio.create_task(run_protocol(wearable, read_protocol(text)))
    await until(lambda: wearable.under_way is not None)
    await wearable.withdraw("labels")
    with pytest.raises(ConsentMissing):
        await asyncio.wait_for(driving, 180)
    assert wearable.under_way is None, "nobody would end it"
    before = [session.id for session in await wearable.history()]
    with pytest.raises(ConsentMissing):  # also where nothing is labelled: markers are a kind of labels
        await run_protocol(wearable, read_protocol(text.replace("fear", "").replace("angry", "")))
    assert [session.id for session in await wearable.history()] == before
    await wearable.consent("labels", TEXT)
    await wearable.discard(before[0])


async def _locked(wearable: Wearable, recovery: str) -> None:
    """Locked, nothing is seen or shown; the recovery key opens it; a text that changed is asked for again."""
    await wearable.lock()
    with pytest.raises(Locked):
        await wearable.history()
    with pytest.raises(Locked):
        await wearable.preview()
    await until(lambda: wearable.capture.child.pid is None)
    with pytest.raises(Locked):
        await wearable.start_recording()
    await wearable.unlock(recovery)
    await until(sees(wearable))
    await wearable.withdraw("capture")
    await until(lambda: wearable.capture.child.pid is None)
    for refused in (wearable.save_last(), wearable.preview(), wearable.try_out()):
        with pytest.raises(ConsentMissing):
            await refused
    await wearable.consent("capture", ConsentText(TEXT.version, "en", TEXT.text))
    await until(sees(wearable))


def test_a_full_quota_names_what_is_to_be_labelled_first(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path, quota_gb=1e-6) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(sees(wearable))
            session = await wearable.start_recording()
            await asyncio.sleep(2.0)
            await wearable.stop_recording()
            with pytest.raises(LabelFirst, match=session):
                await wearable.start_recording()
            assert (await wearable.status()).refusal == "label-first" and len(await wearable.history()) == 1
            assert session in (await wearable.status()).no_room
            await wearable.discard(session)
            assert (await wearable.status()).refusal is None
            await wearable.discard(await wearable.start_recording())
            assert await wearable.history() == [] and list(tmp_path.rglob("*.sealed")) == []

    asyncio.run(scene())


def test_a_fault_of_the_disk_does_not_end_the_wearable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def broken(store: Store, free: int) -> None:
        looks.append(free)
        raise OperationalError("", {}, OSError("disk I/O error"))

    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture",), TEXT)
            await until(sees(wearable))
            with monkeypatch.context() as patched:
                patched.setattr(Store, "refuses_to_record", broken)
                await until(lambda: len(looks) >= 2)
            session = await wearable.start_recording()
            assert [found.id for found in await wearable.history()] == [session], "it works as before"
            await wearable.discard(session)

    asyncio.run(scene())


def test_pictures_are_looked_at_where_their_ring_is_closed(tmp_path: Path) -> None:
    where: set[int] = set()

    async def scene() -> None:
        async with running(tmp_path) as wearable:
            real = wearable.capture.preview

            def looked() -> Preview | None:
                where.add(threading.get_ident())
                return real()

            wearable.capture.preview = looked  # type: ignore[method-assign]
            await wearable.set_up(None, ("capture",), TEXT)
            await until(lambda: where != set())
        assert where == {threading.get_ident()}

    asyncio.run(scene())


def test_capture_that_hangs_at_a_start_records_nothing_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(sees(wearable))
            hangs = wearable.capture.child.pid
            assert hangs is not None
            os.kill(hangs, signal.SIGSTOP)
            with monkeypatch.context() as patched, pytest.raises(McoeError, match="does not answer"):
                patched.setattr("client.capture_link.ANSWER_S", 0.5)
                await wearable.start_recording()
            await until(lambda: not Path(f"/proc/{hangs}/fd/0").exists())
            assert await wearable.history() == []
            await until(lambda: wearable.capture.child.pid not in (None, hangs) and sees(wearable)())
            session = await wearable.start_recording()
            await asyncio.sleep(2.0)
            assert await wearable.stop_recording() == session
            assert [one.id for one in await wearable.history()] == [session] and left_over(wearable.plain) == []

    asyncio.run(scene())


async def _killed_while_it_records(folder: Path) -> str:
    """A locked wearable's session, of which nothing is sealed: its capture was killed, and the program with it."""
    session = ""
    async with running(folder) as wearable:
        await wearable.set_up(PASSPHRASE, ("capture", "labels"), TEXT)
        await until(sees(wearable))
        session = await wearable.start_recording()
        await until(lambda: written(wearable) > 2_000_000)
        wearable.capture._gone_by = lambda: None
        wearable.under_way = None
        wearable.capture.child.kill()
        await until(lambda: wearable.capture.child.pid is None)
        wearable.known = replace(wearable.known, allowed=frozenset())
    return session


def test_what_was_left_is_put_in_order_before_the_camera_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        session = await _killed_while_it_records(tmp_path)
        async with running(tmp_path) as wearable:
            assert len(left_over(wearable.plain)) == 1
            real, pids = wearable.salvage, list[int | None]()

            async def full(*_: object, **__: object) -> None:
                raise DiskFull("no space")

            async def slow(one: str | None = None) -> set[str]:
                await asyncio.sleep(2.0)
                pids.append(wearable.capture.child.pid)
                with monkeypatch.context() as patched:
                    patched.setattr("client.wearable.recordings.content", full)
                    return await real(one)

            wearable.salvage = slow  # type: ignore[method-assign]
            await wearable.unlock(PASSPHRASE)
            assert pids == [None] and len(left_over(wearable.plain)) == 1, "a full disk deletes nothing"
            wearable.salvage = real  # type: ignore[method-assign]
            with pytest.raises(DataMissing):
                await wearable.discard("another")
            other = await wearable.kept(lambda store: store.begin_session("DAVIS346", Geometry()))
            await wearable.discard(other)  # which makes room
            assert left_over(wearable.plain) == []
            [found] = await wearable.history()
            assert found.id == session and found.state == "partial" and found.seconds > 0.5
            wearable._unsealed = {session}
            await wearable.discard(session)  # nothing waits for what is gone
            await until(sees(wearable))

    asyncio.run(scene())


def test_the_wearer_goes_back_to_the_model_before(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture",), TEXT)
            assert wearable.paths is not None
            models = Running(wearable.paths.running)
            models.adopt("a" * 64)
            found, worse = Comparison(24, 3, 19, 18, 2, 1), Comparison(24, 3, 12, 20, 0, 8)
            models.adopt("b" * 64, found)
            taken = ModelChoice("b" * 12, None, "a" * 12, False, found.in_words())
            await until(lambda: wearable._model == taken)
            await wearable.keep_model()
            kept = ModelChoice("a" * 12, "b" * 12, None, False, found.in_words())
            await until(lambda: wearable._model == kept)
            models.refuse("c" * 64, "worse", worse)
            refused = ModelChoice("a" * 12, "c" * 12, None, True, worse.in_words())
            await until(lambda: wearable._model == refused)

    asyncio.run(scene())


def test_a_try_out_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.wearable.recordings.TRY_OUT_S", 4.0)

    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture",), TEXT)
            await until(sees(wearable))
            before = {path for path in tmp_path.rglob("*") if path.is_file()}
            found = await wearable.try_out()
            assert len(found.pairs) > 15 and found.frames > 15 and found.events > 1000
            assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
            assert await wearable.tried_out() is found
            await wearable.withdraw("capture")
            with pytest.raises(ConsentMissing):
                await wearable.tried_out()
            await wearable.consent("capture", TEXT)
            with pytest.raises(DataMissing):
                await wearable.tried_out()
            await until(sees(wearable))
            late = asyncio.create_task(wearable.try_out())
            await asyncio.sleep(0.3)
            await wearable.change_wearer("P02", None)
            await wearable.consent("capture", TEXT)
            with pytest.raises(DataMissing, match="another one"):
                await late
            with pytest.raises(DataMissing):
                await wearable.tried_out()

    asyncio.run(scene())


def test_a_try_out_that_nobody_deletes_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.wearable.recordings.TRY_OUT_S", 1.0)
    monkeypatch.setattr("client.wearable.recordings.TRY_OUT_KEPT_S", 12.0)

    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture",), TEXT)
            await until(sees(wearable))
            await wearable.try_out()
            await asyncio.sleep(8)
            second = await wearable.try_out()
            await asyncio.sleep(4)
            assert await wearable.tried_out() is second, "the time of the first one is over, not its own"
            await until(lambda: wearable._tried_out is None)
            with pytest.raises(DataMissing):
                await wearable.tried_out()
            monkeypatch.setattr("client.wearable.recordings.TRY_OUT_S", 5.0)
            left = asyncio.create_task(wearable.try_out())
            await asyncio.sleep(0.3)
            await wearable.delete_try_out()
            with pytest.raises(DataMissing, match="was deleted"):
                await left
            assert wearable._tried_out is None

    asyncio.run(scene())


def test_a_camera_out_of_step_is_remembered_when_its_process_dies(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(sees(wearable))
            session = await wearable.start_recording()
            await asyncio.sleep(2.0)
            wearable._heard({"is": "rate", "in_sync": False})  # what capture says when events and frames drift apart
            assert wearable.capture.child.pid is not None
            os.kill(wearable.capture.child.pid, signal.SIGKILL)
            await until(lambda: wearable.under_way is None)
            found = await wearable.kept(lambda store: store.session(session))
            assert (found.state, found.flaw) == ("partial", "out-of-sync")

    asyncio.run(scene())


def test_a_text_that_changes_meanwhile_ends_what_was_agreed_to_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "en.txt").write_text("v1\nThe first text.\n")

    async def scene() -> None:
        async with running(tmp_path / "wearable", texts) as wearable:
            with pytest.raises(DataInvalid, match="changed meanwhile"):
                await wearable.set_up(PASSPHRASE, ("capture", "labels"), TEXT)
            assert (await wearable.status()).stage == "new"
            assert await wearable.set_up(PASSPHRASE, ("capture", "labels"), read_consent_text(texts, "en")) is not None
            await until(sees(wearable))
            session = await wearable.start_recording()
            await asyncio.sleep(2.0)
            (texts / "en.txt").write_text("v2\nThe second text.\n")
            await until(lambda: wearable.under_way is None and wearable.capture.child.pid is None)
            found = await wearable.session(session)
            assert found.state == "whole" and found.seconds > 0.5 and found.bytes > 0
            with pytest.raises(ConsentMissing):
                await wearable.start_recording()
            with pytest.raises(DataInvalid, match="text v2, not v1"):
                await wearable.consent("capture", ConsentText("v1", "en", "The first text."))
            await wearable.consent("capture", read_consent_text(texts, "en"))
            await until(sees(wearable))
            await wearable.discard(await wearable.start_recording())

    asyncio.run(scene())
