"""What there is to learn from, and what was learned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from client.sessions.spans import SpanStore, all_stand, label_of, stands
from client.sessions.tables import RECORDING, LabelRow, SessionRow, SpanRow, TrainingRow
from client.sessions.times import DAY_US
from client.sessions.values import Training
from mcoe_model.names import EMOTIONS


@dataclass(frozen=True)
class Lesson:
    """A span whose label can be learned; ``label_id`` is the version of it."""

    span: int
    label_id: int
    session: str
    start_us: int
    end_us: int
    emotion: str


@dataclass(frozen=True)
class Lessons:
    """What is to be learned, and how many labelled spans are left out for good.

    ``contradicted``: a later label of the same time says something else. ``flawed``: their recording cannot be learned
    from, which its session says.
    """

    lessons: tuple[Lesson, ...]
    contradicted: int
    flawed: int


class LessonStore(SpanStore):
    """Labelled spans on their way into the head."""

    def to_learn(self) -> Lessons:
        """Spans with an emotion that was not learned yet, whose recording is there and without a flaw.

        Where spans of different emotions overlap, the one that was labelled last counts. Without the consent to labels
        they stay and are learned once it is given again. Raises ConsentMissing, Locked.
        """
        self.require("labels")
        self.require("learning")
        self._unlocked()
        there = (SessionRow.state != RECORDING, SessionRow.wrapped_key.is_not(None))
        with self._reading() as session:
            found = [
                (lesson, span.learned_label_id == lesson.label_id)
                for span, newest, *_ in all_stand(session, *there, SessionRow.flaw.is_(None))
                if (lesson := _lesson(span, newest)) is not None
            ]
            never = (SessionRow.flaw.is_not(None), SpanRow.learned_us.is_(None))  # others are `lost`, or were learned
            flawed = sum(_lesson(span, newest) is not None for span, newest, *_ in all_stand(session, *there, *never))
        labelled = [lesson for lesson, _ in found]
        new = [lesson for lesson, learned in found if not learned]
        good = tuple(lesson for lesson in new if not any(_contradicts(other, lesson) for other in labelled))
        return Lessons(good, len(new) - len(good), flawed)

    def standing(self) -> frozenset[tuple[int, int]]:
        """Every span that has an emotion, with the version of its label that counts, learned or not. Raises Locked."""
        self._unlocked()
        newest = select(func.max(LabelRow.id)).where(~LabelRow.undone).group_by(LabelRow.span_id)
        query = select(LabelRow.span_id, LabelRow.id, LabelRow.said).where(LabelRow.id.in_(newest))
        with self._reading() as session:
            rows = session.execute(query).all()
        return frozenset((span, label) for span, label, said in rows if said is not None and said["said"] in EMOTIONS)

    def mark_learned(self, clips: Collection[tuple[int, int]], training: Training) -> bool:
        """The head has learned these versions of spans, as ``training`` says; False when that was written down before.

        A session of which nothing is left to label or learn is kept some days more.
        """
        at = self._clock()
        now_us = at.utc_us
        with self._writing() as session:
            spans = {span: session.get(SpanRow, span) for span, _ in clips}  # some may be discarded meanwhile
            new = [(row, label) for span, label in clips if (row := spans[span]) and row.learned_label_id != label]
            if clips and not new:
                return False
            session.add(TrainingRow(**asdict(training), monotonic_ns=at.monotonic_ns, clock_state=at.clock_state))
            for row, label in new:
                row.learned_label_id, row.learned_us = label, now_us
            session.flush()
            for session_id in sorted({row.session_id for row, _ in new}):
                self._note_learned(session, session_id, now_us)
        return True

    def learn_anew(self, clips: Collection[tuple[int, int]]) -> int:
        """What these versions of spans have become is of no use any more, as if they had never been learned.

        How many wait to be learned again, as others do; the rest is `lost`. A recording is kept no longer for it.
        Raises ConsentMissing, Locked.
        """
        self.require("learning")
        self._unlocked()
        waiting = 0
        with self._writing() as session:
            for span_id, label_id in clips:
                span = session.get(SpanRow, span_id)
                if span is None or span.learned_label_id != label_id:
                    continue
                span.learned_label_id = None
                row = self._row(session, span.session_id)
                if row.wrapped_key is not None and row.flaw is None:
                    row.learned_us = None  # so that it is not in the way of new ones before it was learned
                    waiting += 1
        return waiting

    def lost(self) -> int:
        """How many labelled spans were learned once, would have to be again, and cannot be: the recording is gone.

        Raises Locked.
        """
        self._unlocked()
        gone = (SessionRow.wrapped_key.is_(None) | SessionRow.flaw.is_not(None),
                SpanRow.learned_us.is_not(None), SpanRow.learned_label_id.is_(None))  # fmt: skip
        with self._reading() as session:
            return sum(_lesson(span, newest) is not None for span, newest, *_ in all_stand(session, *gone))

    def _note_learned(self, session: Session, session_id: str, now_us: int) -> None:
        row = self._row(session, session_id)
        spans = session.scalars(select(SpanRow).where(SpanRow.session_id == session_id))
        if all(_is_done(session, span) for span in spans):
            row.learned_us = now_us
            if not row.kept:
                latest_us = now_us + self.rules.retention.days_after_learning * DAY_US
                row.raw_until_us = min(row.raw_until_us, latest_us)


def _lesson(span: SpanRow, newest: LabelRow | None) -> Lesson | None:
    """What is to be learned of a span, by its newest version."""
    label = label_of(newest)
    if newest is None or label is None or label.emotion is None:
        return None
    return Lesson(span.id, newest.id, span.session_id, newest.start_us, newest.end_us, label.emotion)


def _contradicts(other: Lesson, lesson: Lesson) -> bool:
    """Whether another label, given later, says something else of a part of the same time."""
    same_time = other.session == lesson.session and other.start_us < lesson.end_us and lesson.start_us < other.end_us
    return same_time and other.emotion != lesson.emotion and other.label_id > lesson.label_id


def _is_done(session: Session, span: SpanRow) -> bool:
    """Whether nothing is left to say of a span, and nothing to learn from it."""
    newest = stands(session, span)[2]
    label = label_of(newest)
    if newest is None or label is None:
        return False
    return label.emotion is None or span.learned_label_id == newest.id
