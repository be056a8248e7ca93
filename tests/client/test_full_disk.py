"""A disk that is full when an update or a lesson is kept: DiskFull, nothing half-written, what was there is whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, MessageType, RecordDict
from test_app import ask
from test_learn import CLIPS, NAMES, Desk, desk, model, said  # noqa: F401 (two fixtures)
from test_outbox import learned
from toy_store import ToyStore

from client.app import CANNOT_DO, make_client_app
from client.learner import Learned
from client.lesson_book import Clip, LessonBook, Result, ResultFile
from client.outbox import Outbox
from mcoe_model.errors import DiskFull, ExitCode
from mcoe_model.protocol import News

KEY, GENERATION = bytes(range(32)), "0a" * 8
RESULT = Result(GENERATION, ("1-101",), "b" * 64, None, "learned", 1, 1.0, memory=b"little")


def fill(disk: Path) -> Path:
    """Leave no room; the file that takes it."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def files(disk: Path) -> dict[str, bytes]:
    """All files, hidden ones too, but for the filler."""
    found = {str(path.relative_to(disk)): path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    found.pop("filler", None)
    return found


def clip(name: str, day: int = 20_000, rows: int = 20) -> Clip:
    features = np.random.default_rng(1).random((rows, 64), np.float32)
    return Clip(name, 3, day, {("event", "apex"): features, ("frame", "apex"): features})


def refused(disk: Path, write: Callable[[], object]) -> None:
    """It does not fit, is said as documented, and changes no file. With room it is done."""
    filler, before = fill(disk), files(disk)
    with pytest.raises(DiskFull) as full:
        write()
    assert full.value.exit_code == ExitCode.DISK_FULL and files(disk) == before
    filler.unlink()
    write()
    assert files(disk) != before


def test_an_update_that_does_not_fit_leaves_those_before_it(small_disk: Path) -> None:
    outbox, first, second = Outbox(small_disk / "outbox", KEY), learned(1), learned(2)
    outbox.put(first)
    refused(small_disk, lambda: outbox.put(second))
    assert outbox.ids() == (first.meta.update_id, second.meta.update_id)
    assert all(outbox.find(one.meta.update_id, 3) is not None for one in (first, second))


def test_a_clip_that_does_not_fit_leaves_the_one_that_it_was_to_take_the_place_of(small_disk: Path) -> None:
    book = LessonBook(small_disk / "lessons", KEY, GENERATION)
    book.put(clip("1-101"))
    refused(small_disk, lambda: book.put(clip("1-102")))
    assert book.waiting == ("1-102",) and len(book.clips(["1-102"])) == 1


def test_a_memory_a_result_and_a_day_that_do_not_fit_leave_the_ones_before(small_disk: Path) -> None:
    book, result = LessonBook(small_disk / "lessons", KEY, GENERATION), ResultFile(small_disk / "lessons", KEY)
    book.put(clip("1-101", day=0))
    book.write_memory(b"little")
    result.write(RESULT)
    refused(small_disk, lambda: book.write_memory(bytes(100_000)))
    refused(small_disk, lambda: result.write(replace(RESULT, memory=bytes(100_000))))
    refused(small_disk, lambda: book.expire(20_001))
    assert book.read_memory() == bytes(100_000) and book.clips(["1-101"])[0].day == 20_001
    kept = result.read()
    assert kept is not None and kept.memory == bytes(100_000)


def test_that_a_round_has_a_clip_is_not_noted_by_half(small_disk: Path) -> None:
    """The update stays in the outbox, too: the server names it again, and then clip and update go together."""
    book = LessonBook(small_disk / "lessons", KEY, GENERATION)
    book.put(clip("1-101"))

    def taken(update: Learned) -> None:
        book.take(["1-101"])

    outbox, update = Outbox(small_disk / "outbox", KEY, taken), learned(1)
    outbox.put(update)
    app = make_client_app(lambda context: ToyStore("client-a", 6), outbox)
    news = ConfigRecord(News((update.meta.update_id,), ()).to_record())  # type: ignore[arg-type]
    crowd = small_disk / "crowd"
    crowd.mkdir()
    with pytest.raises(OSError, match="space"):
        for number in range(10_000):
            (crowd / str(number)).touch()
    refusal = ask(RecordDict({"news": news}), MessageType.QUERY, app=app)
    assert (refusal.error.code, refusal.error.reason) == (CANNOT_DO, "DiskFull")
    assert len(book.clips(["1-101"])) == 1 and outbox.find(update.meta.update_id, 3) is not None
    for path in crowd.iterdir():
        path.unlink()
    assert ask(RecordDict({"news": news}), MessageType.QUERY, app=app).has_content()
    assert book.waiting == outbox.ids() == ()


def test_the_learning_process_says_so_in_a_line_and_ends_with_the_code_of_a_full_disk(
    small_disk: Path, desk: Desk  # noqa: F811
) -> None:
    (desk.folder / "lessons").symlink_to(small_disk)
    book = LessonBook(small_disk, KEY, desk.generation)
    book.put(clip("11-111"))
    filler, before = fill(small_disk), files(small_disk)
    command = [sys.executable, "-m", "client.learn"]
    ended = subprocess.run(command, input=said(desk.task(*NAMES), *CLIPS), capture_output=True)
    assert ended.returncode == ExitCode.DISK_FULL == 21
    assert ended.stderr.decode().splitlines() == ["error: DiskFull, exit code 21"]
    assert files(small_disk) == before
    filler.unlink()
    assert len(book.clips(["11-111"])) == 1
