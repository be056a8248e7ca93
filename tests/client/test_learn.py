"""The process that learns: it may be killed at any moment, and what it learned counts once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from client.learn import read_task
from client.learn_task import PAIR, NewClip, Task
from client.lesson_book import (
    Clip,
    Features,
    LessonBook,
    Result,
    ResultFile,
    clips_of_generation,
    is_held_out,
    keep_lessons,
)
from client.own_models import LEARNED_HERE, fleet_model, model_path, open_model
from mcoe_model.errors import DataInvalid
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, file_sha256, model_bytes, read_model
from mcoe_model.networks import build
from mcoe_model.sealed import read_sealed, write_sealed
from mcoe_model.streams import stream
from mcoe_model.tensors import pack_with, unpack_with
from mcoe_model.update import is_head

KEY = bytes(range(32))
#: The process that learns, killed at one moment.
KILLED = """
import os, signal
from client import learn
real = FUNCTION
def then_die(*given):
    real(*given)
    os.kill(os.getpid(), NUMBER)
FUNCTION = then_die
learn.main()
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a model, and the task that is done in it."""

    folder: Path
    model: Path
    generation: str

    @property
    def book(self) -> LessonBook:
        return LessonBook(self.folder / "lessons", KEY, self.generation)

    @property
    def result(self) -> Result | None:
        return ResultFile(self.folder / "lessons", KEY).read()

    def task(self, *learn: str, stand: tuple[str, ...] = ()) -> Task:
        folder = self.folder
        names = (str(folder / "lessons"), KEY.hex(), str(folder / "models"), str(self.model))
        return Task(*names, learn, stand or learn, 20_000)

    def do(self, task: Task, *new: NewClip, cut: int = 0) -> None:
        """What the process does, in this one."""
        given = said(task, *new)
        read_task(io.BytesIO(given[: len(given) - cut])).learn()

    def killed(self, task: Task, *new: NewClip, after: str, number: int) -> None:
        """Run the process, which this signal ends right after the first call of this function."""
        command = [sys.executable, "-c", KILLED.replace("FUNCTION", after).replace("NUMBER", str(int(number)))]
        assert subprocess.run(command, input=said(task, *new)).returncode == -number


def said(task: Task, *new: NewClip) -> bytes:
    return task.to_json() + b"".join(clip.to_json() + pictures(clip) for clip in new) + b"\n"


def pictures(clip: NewClip) -> bytes:
    """Pictures in which the emotion shows."""
    made = stream("pictures", clip.name).integers(0, 60, (clip.pairs, *PAIR), dtype=np.uint8)
    made[:, :, clip.emotion * 12 : clip.emotion * 12 + 12] += 180
    return made.tobytes()


def new(span: int, emotion: int, pairs: int = 20) -> NewClip:
    return NewClip(f"{span}-{span + 100}", emotion, 19_999, pairs)


CLIPS = tuple(new(span, (0, 3)[span % 2]) for span in range(1, 11))  # 4 and 9 are held out
NAMES = tuple(clip.name for clip in CLIPS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    return model_bytes(tensors, ModelCard(generation, "a test")), generation.id


@pytest.fixture
def desk(tmp_path: Path, model: tuple[bytes, str]) -> Iterator[Desk]:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "base.safetensors"
    path.write_bytes(model[0])
    yield Desk(tmp_path, path.rename(path.with_name(f"{file_sha256(path)}.safetensors")), model[1])


def test_what_is_labelled_becomes_a_model_of_the_wearers_own(desk: Desk) -> None:
    desk.do(desk.task(*NAMES), *CLIPS)
    result = desk.result
    assert result is not None and result.clips and result.model_sha256 is not None
    assert (result.outcome, result.spans, result.base_sha256) == ("learned", 8, desk.model.stem)
    assert sorted(result.clips) == sorted(NAMES) and len(result.labels) == len(result.before) == len(result.after) == 2
    path = model_path(desk.folder / "models", result.model_sha256)
    learned, card = open_model(path, KEY)
    base, _ = read_model(desk.model)
    changed = {name for name in base if not np.array_equal(base[name], learned[name])}
    assert changed and all(map(is_head, changed)) and path.stem == result.model_sha256
    assert card.origin == LEARNED_HERE and fleet_model(path) == fleet_model(desk.model) == desk.model.stem
    memory = ReplayMemory.from_bytes(result.memory, generation=desk.generation)
    assert set(memory.names) == {name for name in NAMES if not is_held_out(int(name.split("-")[0]))}
    assert desk.book.held_out == ("4-104", "9-109") and len(desk.book.waiting) == 8


def test_killed_at_any_moment_it_learns_the_same(desk: Desk, model: tuple[bytes, str], tmp_path: Path) -> None:
    desk.do(desk.task(*NAMES), *CLIPS)
    whole = desk.result
    models = desk.folder / "models"

    for moment, number in (("learn.LessonBook.put", signal.SIGKILL), ("learn.Learning._write", signal.SIGABRT)):
        for path in (*desk.folder.glob("lessons/**/*.sealed"), *models.glob("*.sealed")):
            path.unlink()
        desk.killed(desk.task(*NAMES), *CLIPS, after=moment, number=number)
        there = {*desk.book.waiting, *desk.book.held_out}
        assert there, moment
        desk.do(desk.task(*NAMES), *(clip for clip in CLIPS if clip.name not in there))
        again = desk.result
        assert whole is not None and again is not None
        assert replace(again, seconds=whole.seconds) == whole, moment


def test_what_was_learned_is_replayed_and_what_does_not_stand_is_forgotten(desk: Desk) -> None:
    first, second = CLIPS[:3], CLIPS[4:7]
    desk.do(desk.task(*(clip.name for clip in first)), *first)
    result = desk.result
    assert result is not None
    desk.book.write_memory(result.memory)
    stand = ("1-101", *(clip.name for clip in second))
    desk.do(desk.task(*(clip.name for clip in second), stand=stand), *second)
    result = desk.result
    assert result is not None and result.spans == 3
    assert ReplayMemory.from_bytes(result.memory, generation=desk.generation).names == tuple(sorted(stand))
    desk.book.write_memory(result.memory)
    keep_lessons(desk.folder / "lessons", KEY, stand[1:], 20_000)
    kept = desk.book.read_memory()
    assert kept is not None
    assert ReplayMemory.from_bytes(kept, generation=desk.generation).names == tuple(sorted(stand[1:]))
    assert desk.book.waiting == stand[1:]


@pytest.mark.parametrize(
    ("clips", "outcome"),
    [
        pytest.param((new(1, 2),), "learned", id="one clip"),
        pytest.param((new(1, 2), new(2, 2)), "learned", id="one emotion"),
        pytest.param((new(4, 2),), "held out", id="held out alone"),
        pytest.param((new(1, 1, 3),), "learned", id="three pictures"),
    ],
)
def test_little_is_learned_or_skipped_with_a_reason(desk: Desk, clips: tuple[NewClip, ...], outcome: str) -> None:
    desk.do(desk.task(*(clip.name for clip in clips)), *clips)
    result = desk.result
    assert result is not None and result.outcome == outcome
    assert (result.model_sha256 is None) == (outcome == "held out")


def test_nothing_to_learn_from_makes_no_result(desk: Desk) -> None:
    desk.do(desk.task("1-101"))
    assert desk.result is None


def test_input_that_is_cut_is_refused_and_counts_for_nothing(desk: Desk) -> None:
    with pytest.raises(DataInvalid, match="cut on its way"):
        desk.do(desk.task("1-101", "2-102"), new(1, 0), new(2, 1), cut=100)
    assert desk.result is None and desk.book.waiting == ("1-101",)


def test_a_clip_that_was_changed_on_the_disk_is_as_good_as_none(desk: Desk) -> None:
    desk.do(desk.task("1-101", "2-102"), new(1, 0), new(2, 1))
    [path] = desk.folder.glob("lessons/*/rounds/1-101.sealed")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [clip.name for clip in desk.book.clips(("1-101", "2-102"))] == ["2-102"] and not path.exists()
    [path] = desk.folder.glob("lessons/result.sealed")
    path.write_bytes(path.read_bytes()[:-1])
    assert desk.result is None and not path.exists()


def test_another_version_of_a_span_takes_the_place_of_the_first(desk: Desk) -> None:
    desk.do(desk.task("1-101", "1-105"), new(1, 0), NewClip("1-105", 2, 19_999, 15))
    assert desk.book.waiting == ("1-105",)


def test_nothing_of_the_wearers_is_plain(desk: Desk) -> None:
    desk.do(desk.task(*NAMES), *CLIPS)
    result = desk.result
    assert result is not None and result.model_sha256 is not None
    learned, _ = open_model(model_path(desk.folder / "models", result.model_sha256), KEY)
    base, _ = read_model(desk.model)
    weights = [value.tobytes() for name, value in learned.items() if not np.array_equal(value, base[name])]
    assert weights
    for path in (path for path in desk.folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(one in content for one in weights), path
    for path in desk.folder.rglob("*.sealed"):
        content = path.read_bytes()
        assert b"angry" not in content and b"happiness" not in content and path.stem.encode() not in content


def test_a_round_takes_its_clips_and_old_ones_go_by_themselves(desk: Desk) -> None:
    desk.do(desk.task("1-101", "2-102", "3-103"), new(1, 0), new(2, 1), replace(new(3, 1), day=10))
    desk.book.take(("1-101",))
    assert desk.book.waiting == ("2-102", "3-103")
    desk.book.expire(20_000)
    assert desk.book.waiting == ("2-102",)


def test_what_a_wrong_clock_dated_counts_from_the_day_that_it_is_right(desk: Desk) -> None:
    lessons, stand = desk.folder / "lessons", ("1-101", "2-102")
    desk.do(replace(desk.task(*stand), day=0), replace(new(1, 0), day=0), new(2, 1))
    result = desk.result
    assert result is not None
    desk.book.write_memory(result.memory)

    def left(today: int) -> tuple[int, int]:
        """Clips that wait, and windows in the memory."""
        keep_lessons(lessons, KEY, stand, today)
        memory = ReplayMemory.from_bytes(desk.book.read_memory() or b"", generation=desk.generation)
        return len(desk.book.waiting), len(memory.names)

    assert left(0) == left(20_010) == left(20_059) == (2, 2)
    assert left(20_060) == left(0) == left(20_070) == (1, 2), "the second was recorded on day 19 999"
    assert left(20_071) == left(20_190) == (0, 2)
    assert left(20_191) == (0, 0)


def test_what_is_too_old_goes_although_no_round_asks(desk: Desk) -> None:
    desk.do(desk.task("1-101", "2-102"), new(1, 0), replace(new(2, 1), day=19_960))
    result = desk.result
    assert result is not None
    desk.book.write_memory(result.memory)
    lessons = desk.folder / "lessons"
    keep_lessons(lessons, KEY, ("1-101", "2-102"), 20_021)
    assert desk.book.waiting == ("1-101",)
    keep_lessons(lessons, KEY, ("1-101", "2-102"), 20_180)
    assert clips_of_generation(lessons, KEY, desk.generation) == {"1-101", "2-102"}  # windows of both
    keep_lessons(lessons, KEY, ("1-101", "2-102"), 20_181)
    assert clips_of_generation(lessons, KEY, desk.generation) == set()


def test_the_memory_knows_in_which_light_a_clip_was_recorded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lights stay level in it (`test_replay_memory`); clips of an earlier version are of unknown light."""
    greys = {"1-101": 10, "2-102": 200, "3-103": 45}
    here = tuple(new(int(name.split("-")[0]), 0) for name in greys)
    alike = {name: np.full((20, *PAIR), level, np.uint8).tobytes() for name, level in greys.items()}
    monkeypatch.setattr(f"{__name__}.pictures", lambda clip: alike[clip.name])
    before = NewClip("5-105", 0, 19_999, 20)
    desk.book.put(Clip(before.name, 0, 19_999, features()))
    path = next(desk.folder.glob("lessons/*/rounds/5-105.sealed"))
    tensors, said = unpack_with(b"".join(read_sealed(path, KEY, "clip 5-105")))
    assert said.pop("lighting") == "unknown"
    write_sealed(path, KEY, "clip 5-105", [pack_with(tensors, said)])
    desk.do(desk.task(*greys, before.name), *here)
    expected = {"1-101": "low-light", "2-102": "overexposed", "3-103": "normal", "5-105": "unknown"}
    assert {clip.name: clip.lighting for clip in desk.book.clips(expected)} == expected
    result = desk.result
    assert result is not None
    memory = ReplayMemory.from_bytes(result.memory, generation=desk.generation)
    assert {exemplar.name: exemplar.lighting for exemplar in memory.exemplars} == expected


def features() -> Features:
    """Of twenty pictures by the backbones of mcoe-tiny, as if."""
    size = build("mcoe-tiny", seed=1).feature_size
    return {(modality, "any"): np.ones((20, size), np.float32) for modality in ("frame", "event")}


def test_it_does_not_outlive_its_parent_even_while_it_stands_still(desk: Desk) -> None:
    starts = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'client.learn'], stdin=0); "
    starts += "print(child.pid, flush=True); child.wait()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", starts], **pipes) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(said(desk.task("1-101"), new(1, 0))[:-1])
        parent.stdin.flush()
        child, ends = Path("/proc", parent.stdout.readline().decode().strip()), time.monotonic() + 120
        while desk.book.waiting != ("1-101",):
            assert time.monotonic() < ends
            time.sleep(0.01)
        os.kill(int(child.name), signal.SIGSTOP)
        parent.kill()
        with suppress(OSError):  # it has ended, and is collected
            while ") Z" not in (child / "stat").read_text():
                assert time.monotonic() < ends
                time.sleep(0.01)
