"""What the wearer labelled is learned, whenever it may be: not while a recording runs, and with the gates open.

The learning itself is a process beside this one (`client.learn`), started for each task and fed from here, since only
this process can open recordings. It is stopped where it stands while a recording runs, and goes on afterwards.

With a model of another generation all features are of no use any more. What was learned by them is then learned anew,
as if it had never been, where its recording is still there; the rest is counted, said, and let go of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from client.check_in_gates import CheckInRules
from client.children import open_log
from client.comparison import compare
from client.consent_text import ConsentTexts
from client.enrolment import ClientPaths
from client.gates import RECORDING, read_sensors
from client.learn_task import NewClip, Task
from client.lesson_book import (
    LessonBook,
    Result,
    ResultFile,
    clip_name,
    clip_of,
    clips_of_generation,
    forget_generation,
    generations,
    keep_lessons,
)
from client.own_models import forget_own_models, model_path, open_card
from client.page import wearable_protocol as page
from client.replay import pairs
from client.running import Running
from client.said import Said
from client.serving import served_model
from client.sessions import Lesson, Lessons, Store, StoreRules, Training, now
from client.sessions.times import DAY_US, believed
from client.wearable.lifecycle import LivedWearable
from client.wearable.views import utc
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import DataInvalid, DataMissing, McoeError, for_log
from mcoe_model.model_file import read_card
from mcoe_model.names import EMOTIONS

#: Seconds between two looks for something to learn; labels that came since the last look are waited for.
LOOK_S = 10.0
#: A learning process that fails begins again after twice the time, up to so many looks.
_MOST_PATIENCE = 64
#: Seconds between two looks whether the learning process is to stand still.
_WATCH_S = 0.2
#: A window begins with the picture before it: so much of the recording before a span is decoded, too.
_BEFORE_US = 1_000_000

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class _Work:
    """What there is to learn, and what the book keeps. ``model``: the file to begin from."""

    lessons: tuple[Lesson, ...]
    task: Task
    model: Path

    @property
    def names(self) -> tuple[str, ...]:
        return self.task.learn


class LearningWearable(LivedWearable):
    """A wearable whose model becomes its wearer's."""

    def __init__(
        self,
        folder: Path,
        device: str,
        rules: StoreRules,
        texts: ConsentTexts,
        check_ins: CheckInRules = CheckInRules(),  # noqa: B008 (it is frozen)
    ) -> None:
        super().__init__(folder, device, rules, texts, check_ins)
        self.learning = page.Learning()
        self._learner: Process | None = None
        self._learner_stopped = False  # by this process
        self._goes_on = asyncio.Event()  # what the learning process is given; not while that stands still
        self.learner_failed: tuple[float, int] | None = None  # as `Child.failed`
        self._at_lessons = asyncio.Lock()  # nobody takes the lesson book away while it is read or written here
        self._said_unknown = False
        self._left_out: dict[str, int] = {}  # labelled spans that are not learned, by why, as the page counts them
        self._failures = 0  # of the learning process, in a row
        self._stood: tuple[tuple[str, ...], int] | None = None  # the clips that the book was kept to last, and the day

    async def keep_learning(self) -> None:
        """Learn what is labelled as soon as that may be. Never ends."""
        seen: tuple[str, ...] = ()
        while True:
            try:
                async with self._at_lessons:
                    work = await self._look_for_work()
                    names = work.names if work else ()
                    await self._say_learning("waiting" if names else "nothing", len(names))
                    if work and names and names == seen and not self._closed():
                        await self._learn(work)
                    seen = names
            except (McoeError, SQLAlchemyError, OSError) as fault:
                log.warning("nothing is learned now: %s", for_log(fault))
            await asyncio.sleep(LOOK_S * min(2**self._failures, _MOST_PATIENCE))

    def stop_learning(self) -> None:
        """End the learning process, which holds what it learns from in memory. It begins again when it may."""
        self._learner_stopped = True
        self._goes_on.set()  # to hear of it
        if self._learner is not None:
            with contextlib.suppress(ProcessLookupError):
                self._learner.kill()

    def _may_keep(self) -> bool:
        """Whether the key is here, and the wearer agrees that something is made for learning."""
        return self.stage == "open" and self.lessons_key is not None and "learning" in self.known.allowed

    def _may_learn(self) -> bool:
        """Whether it may also be learned from, which takes the consent to labels, too."""
        return self._may_keep() and "labels" in self.known.allowed

    def _closed(self) -> tuple[Said, ...]:
        """Why nothing is learned now."""
        sensors = read_sensors(self._check_in_rules.system)
        if sensors.unknown() and not self._said_unknown:
            self._said_unknown = True
            log.info("this machine does not tell its %s: that stops no learning", " and ".join(sensors.unknown()))
        recording = (RECORDING,) if self.under_way is not None else ()
        return (*recording, *sensors.closed())

    async def _look_for_work(self) -> _Work | None:
        """What is to be learned, once what was learned is in the store; None while nothing can be."""
        key, paths = self.lessons_key, self.paths
        if paths is None or key is None or not self._may_keep():
            self._left_out = {}
            await self._drop_unless_agreed()
            return None
        folder, models = paths.lessons, paths.models
        waiting = ResultFile(folder, key)
        result = await asyncio.to_thread(waiting.read)
        if result is not None:
            await self._keep(result, paths, key)
            waiting.remove()
        model = served_model(paths, unlocked=True)
        if model is None:
            return None
        await self._begin_generation(paths, model, key)

        def look(store: Store) -> tuple[Lessons, frozenset[tuple[int, int]], int]:
            found = store.to_learn() if self._may_learn() else Lessons((), 0, 0)
            return found, store.standing(), store.lost()

        found, standing, lost = await self.kept(look)
        lessons = found.lessons
        held_out = {name for one in generations(folder) for name in LessonBook(folder, key, one).held_out}
        self._left_out = {"lost": lost, "contradicted": found.contradicted, "flawed": found.flawed}
        self._left_out["held_out"] = len(held_out)
        stand = tuple(sorted(clip_name(*clip) for clip in standing))
        day = now().day
        if (stand, day) != self._stood:
            await asyncio.to_thread(keep_lessons, folder, key, stand, day)
            self._stood = stand, day
        names = tuple(clip_name(lesson.span, lesson.label_id) for lesson in lessons)
        return _Work(lessons, Task(str(folder), key.hex(), str(models), str(model), names, stand, day), model)

    async def _drop_unless_agreed(self) -> None:
        """What was made for learning goes with the consent to it, also one that was withdrawn while nothing ran."""
        if self.paths is None or not self.paths.lessons.exists():
            return
        lessons = self.paths.lessons
        answer = (await self.kept_locked(lambda store: store.consents())).get("learning")
        if answer is None or not answer.given:
            await asyncio.to_thread(shutil.rmtree, lessons, ignore_errors=True)

    async def _begin_generation(self, paths: ClientPaths, model: Path, key: bytes) -> None:
        """Learn anew what older generations knew, as far as that can be, once nobody uses them any more.

        The generation of the model that is served is in use, and that of the fleet's tasks, which may be another as
        long as the wearer keeps an older model.
        """
        folder, kept = paths.lessons, set(generations(paths.lessons))
        used = {(await asyncio.to_thread(open_card, model, key)).generation.id}
        if self._is_member() and kept - used:
            resident = model_path(paths.models, Running(paths.running).read().resident)
            if not resident.is_file():
                return  # the fleet's part has not said yet what its tasks are of
            used.add((await asyncio.to_thread(read_card, resident)).generation.id)
        old = sorted(kept - used)
        if not old:
            return
        names = {name for one in old for name in await asyncio.to_thread(clips_of_generation, folder, key, one)}
        waiting = await self.kept(lambda store: store.learn_anew([clip_of(name) for name in sorted(names)]))
        for one in old:
            await asyncio.to_thread(forget_generation, folder, one)
        log.info("a new generation of models: of %d labelled spans %d are learned anew", len(names), waiting)

    async def _learn(self, work: _Work) -> None:
        """One task, from its first clip to its result."""
        with open_log(self.folder / "logs" / "learn.log") as output:
            self._learner_stopped = False
            self._learner = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "client.learn", stdin=PIPE, stderr=output, start_new_session=True
            )
        log.info("%d labelled spans are learned (process %d)", len(work.names), process.pid)
        self._goes_on.set()
        watching = asyncio.create_task(self._watch(process))
        try:
            if not self._may_learn():  # since it was asked for: whoever ended that had no process to end
                return
            await self._feed(process, work)
            code = await process.wait()
            self._failures = self._failures + 1 if code > 0 else 0  # one that was killed did nothing wrong
            if code:
                log.warning("the learning process ended with code %d; it begins again", code)
            if code and not self._learner_stopped:
                self.learner_failed = asyncio.get_running_loop().time(), code
        finally:
            watching.cancel()
            self.stop_learning()
            await asyncio.gather(process.wait(), watching, return_exceptions=True)
            self._learner = None

    async def _feed(self, process: Process, work: _Work) -> None:
        """The task, and every clip that is not in the book."""
        pipe = process.stdin
        assert pipe is not None
        try:
            pipe.write(work.task.to_json())
            key = bytes.fromhex(work.task.key)
            card = await asyncio.to_thread(open_card, work.model, key)
            book = LessonBook(Path(work.task.lessons), key, card.generation.id)
            there = book.encoded
            for lesson, name in zip(work.lessons, work.names, strict=True):
                if name in there:
                    continue
                await self._goes_on.wait()
                found = await self._pictures(lesson)
                if found:
                    session = await self.kept(partial(Store.session, session_id=lesson.session))
                    day = session.started_us // DAY_US if believed(session.clock_state) else work.task.day
                    pipe.write(NewClip(name, EMOTIONS.index(lesson.emotion), day, len(found)).to_json())
                    for pair in found:
                        pipe.write(pair.frame.tobytes() + pair.event.tobytes())
                        await pipe.drain()
            pipe.write(b"\n")
            await pipe.drain()
        except ConnectionError:  # the process has ended, which its code tells
            return
        finally:
            pipe.close()

    async def _pictures(self, lesson: Lesson) -> list[Pair]:
        """A span's pairs of pictures. A session that cannot be read is never learned from, and says so."""

        def read(store: Store) -> tuple[list[bytes], Geometry]:
            first, last = lesson.start_us - _BEFORE_US, lesson.end_us
            found = [s for s in store.segments(lesson.session) if s.ends_us >= first and s.starts_us <= last]
            opened = [b"".join(store.open_segment(segment)) for segment in found]
            return opened, store.session(lesson.session).geometry

        try:
            segments, geometry = await self.kept(read)
            wanted = geometry, lesson.start_us, lesson.end_us
            found = await pairs(segments, *wanted, self._goes_on.wait) if segments else []
            if found:
                return found
            why = "no-pictures"
        except (DataInvalid, DataMissing):
            why = "unreadable"
        with contextlib.suppress(DataMissing):  # it was deleted meanwhile
            await self.kept(lambda store: store.flag(lesson.session, why))
            log.warning("a recording cannot be learned from: %s", why)
        return []

    async def _watch(self, process: Process) -> None:
        """Let the process stand still while it must not learn, and say so."""
        stands = False
        while not self._learner_stopped:  # afterwards nobody may be left to wait
            closed = self._closed()
            if bool(closed) != stands:
                stands = bool(closed)
                (self._goes_on.clear if stands else self._goes_on.set)()
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGSTOP if stands else signal.SIGCONT)
            with contextlib.suppress(McoeError, SQLAlchemyError):  # what is shown may be late, standing still may not
                await self._say_learning("paused" if stands else "learning", self.learning.waiting)
            await asyncio.sleep(_WATCH_S)

    async def _keep(self, result: Result, paths: ClientPaths, key: bytes) -> None:
        """Serve the new model unless it is worse, and write down what was learned. Whatever was done before counts.

        Nothing of it counts when another model than the one that it began from is served by now: from that one the
        same clips are learned anew.
        """
        book, running = LessonBook(paths.lessons, key, result.generation), Running(paths.running)
        found, model = compare(result.labels, result.after, result.before), result.model_sha256
        if model is not None:
            take = partial(running.take_lesson, worse=found.verdict == "worse", trial=found)
            if not await asyncio.to_thread(take, model, result.base_sha256):
                log.info("another model came while %d labelled spans were learned: they are learned anew", result.spans)
                await asyncio.to_thread(forget_own_models, paths)
                return
        if result.memory:
            await asyncio.to_thread(book.write_memory, result.memory)
        scores = {"clips": found.clips, "before": found.served, "after": found.newer} if found.clips else None
        at = now()
        training = Training(
            utc_us=at.utc_us,
            zone=at.zone,
            base_sha256=result.base_sha256,
            model_sha256=model,
            spans=result.spans,
            outcome=result.outcome,
            seconds=result.seconds,
            scores=scores,
        )
        clips = [clip_of(name) for name in result.clips]
        if await self.kept(lambda store: store.mark_learned(clips, training)):
            said = result.spans, result.seconds, found.verdict
            log.info("%d labelled spans were learned in %.1f s; verdict: %s", *said)
        await asyncio.to_thread(book.forget_again)
        self.recognise.follow()
        await asyncio.to_thread(forget_own_models, paths)

    async def _say_learning(self, state: page.LearningState, waiting: int) -> None:
        """What the page shows of it."""
        last = self.learning.last
        if state != self.learning.state or (state == "nothing" and last is None):
            trainings = await self.kept(lambda store: store.trainings()) if self.stage == "open" else []
            last = next((_lesson_view(one) for one in reversed(trainings) if one.model_sha256), None)
        self.learning = page.Learning(state, waiting, self._closed() if waiting else (), last, **self._left_out)

    async def lock(self) -> None:
        """As in `LivedWearable`."""
        await super().lock()
        self.stop_learning()

    async def withdraw(self, kind: str) -> None:
        """As in `LivedWearable`; without the consent to learning, nothing is kept that was made for it.

        Without the one to labels it stays, and nothing is learned from it.
        """
        if kind in ("labels", "learning"):
            self.stop_learning()
        await super().withdraw(kind)
        if kind == "learning":
            async with self._at_lessons:
                await self._drop_unless_agreed()

    async def _let_go(self) -> None:
        await super()._let_go()
        self.stop_learning()
        async with self._at_lessons:  # what is under way there ends, and nothing begins any more
            self.learning, self._left_out = page.Learning(), {}


def _lesson_view(training: Training) -> page.LastLesson:
    scores = training.scores or {"clips": 0, "before": 0, "after": 0}
    return page.LastLesson(utc(training.utc_us), training.spans, training.outcome, **scores)
