"""Spans of sessions and what the wearer said of them: every version is kept, and the newest counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from client.said import Said
from client.sessions.database import forget_deleted
from client.sessions.recordings import RecordingStore
from client.sessions.tables import LabelRow, PromptRow, RequestRow, SegmentRow, SessionRow, SpanRow
from client.sessions.values import Change, Label, Prediction, Source, Span, check_bounds
from mcoe_model.errors import DataInvalid, DataMissing, McoeError


class SpanStore(RecordingStore):
    """What was marked and labelled.

    ``once`` is a word that a form carries: what is asked twice with the same one is done once, and answered alike.
    """

    def add_span(
        self, session_id: str, start_us: int, end_us: int, *, predicted: Prediction | None = None, once: str = ""
    ) -> Span:
        """A part of a session, in the camera's microseconds. ``predicted``: the model's guess.

        Raises ConsentMissing, Locked, DataMissing, and DataInvalid for one that is too short or long, or beyond what
        was recorded.
        """

        def do(session: Session) -> SpanRow:
            self._row(session, session_id)
            _check(session, session_id, start_us, end_us)
            span = SpanRow(session_id=session_id, start_us=start_us, end_us=end_us, made_us=self._clock().utc_us)
            span.predicted = None if predicted is None else predicted.to_plain()
            session.add(span)
            return span

        return self._once(once, do)

    def label(self, span_id: int, label: Label, *, source: Source | None = None, once: str = "") -> Span:
        """What the wearer says, for the first time or now differently. Answers the questions that wait about it.

        ``source``: by default the prompt, if one was shown, else the wearer.
        Raises ConsentMissing, Locked, DataMissing.
        """

        def do(session: Session) -> SpanRow:
            span = _span(session, span_id)
            start_us, end_us, _ = stands(session, span)
            shown = _answer(session, span_id, self._clock().utc_us)
            said_by = source or ("prompt" if shown else "wearer")
            self._add_version(session, span_id, start_us, end_us, label, said_by)
            return span

        return self._once(once, do)

    def trim(self, span_id: int, start_us: int, end_us: int, *, once: str = "") -> Span:
        """Other bounds, with the same label. Raises what `add_span` raises."""

        def do(session: Session) -> SpanRow:
            span = _span(session, span_id)
            newest = stands(session, span)[2]
            _check(session, span.session_id, start_us, end_us)
            label = label_of(newest)
            source = cast(Source, newest.source) if newest is not None else "wearer"
            self._add_version(session, span_id, start_us, end_us, label, source)
            return span

        return self._once(once, do)

    def undo(self, span_id: int, *, once: str = "") -> Span:
        """Take the newest version back: the one before counts again. Raises ConsentMissing, Locked, DataMissing."""

        def do(session: Session) -> SpanRow:
            span = _span(session, span_id)
            newest = stands(session, span)[2]
            if newest is not None:
                newest.undone = True
            return span

        return self._once(once, do)

    def discard_span(self, span_id: int) -> None:
        """The span and everything that was said of it are deleted for good. Raises DataMissing."""
        with self._writing() as session:
            session.delete(_span(session, span_id))
        with suppress(McoeError):  # while others read; the next deletion sees to it
            forget_deleted(self.engine, self._database)

    def span(self, span_id: int) -> Span:
        """Raises Locked, DataMissing."""
        with self._reading() as session:
            return _seen(session, _span(session, span_id))

    def spans(self, session_id: str | None = None) -> list[Span]:
        """Those of one session, or all, in the order of their start. Raises Locked."""
        self._unlocked()
        mine = [] if session_id is None else [SpanRow.session_id == session_id]
        with self._reading() as session:
            found = all_stand(session, *mine)
            return [_view(*one) for one in sorted(found, key=lambda one: (one[0].session_id, one[0].start_us))]

    def _once(self, once: str, do: Callable[[Session], SpanRow]) -> Span:
        self.require("labels")
        self._unlocked()
        with self._writing() as session:
            done = session.get(RequestRow, once) if once else None
            if done is not None:
                return _seen(session, _span(session, done.span_id))
            span = do(session)
            session.flush()
            if once:
                session.add(RequestRow(token=once, span_id=span.id, utc_us=self._clock().utc_us))
            return _seen(session, span)

    def _add_version(
        self, session: Session, span_id: int, start_us: int, end_us: int, label: Label | None, source: Source
    ) -> None:
        at = self._clock()
        said = None if label is None else {"said": label.said, "intensity": label.intensity}
        bounds = {"start_us": start_us, "end_us": end_us}
        when = {"edited_us": at.utc_us, "zone": at.zone, "monotonic_ns": at.monotonic_ns, "clock_state": at.clock_state}
        session.add(LabelRow(span_id=span_id, said=said, source=source, **when, **bounds))


def _span(session: Session, span_id: int) -> SpanRow:
    span = session.get(SpanRow, span_id)
    if span is None:
        raise DataMissing(f"there is no span {span_id}; it was discarded")
    return span


def _answer(session: Session, span_id: int, now_us: int) -> bool:
    """End the questions about this span; whether one of them was shown."""
    asked = select(PromptRow).where(PromptRow.span_id == span_id, PromptRow.ended.is_(None))
    shown = False
    for prompt in session.scalars(asked):
        prompt.ended, prompt.answered_us = "answered", now_us
        shown = shown or prompt.shown_us is not None
    return shown


def stands(session: Session, span: SpanRow) -> tuple[int, int, LabelRow | None]:
    """Where a span lies now, and its newest version, if it has any."""
    query = select(LabelRow).where(LabelRow.span_id == span.id, ~LabelRow.undone).order_by(LabelRow.id.desc()).limit(1)
    newest = session.scalars(query).first()
    return (span.start_us, span.end_us, None) if newest is None else (newest.start_us, newest.end_us, newest)


def all_stand(session: Session, *where: ColumnElement[bool]) -> list[tuple[SpanRow, LabelRow | None, int, bool]]:
    """Spans by id, each as `stands` has it, with the number of its versions and whether its recording is there.

    One question for all of them: a wearer may have thousands.
    """
    mine = select(SpanRow.id).join(SessionRow).where(*where)
    newest = select(
        LabelRow.span_id,
        func.max(case((~LabelRow.undone, LabelRow.id))).label("id"),
        func.count().label("versions"),
    )
    versions = newest.where(LabelRow.span_id.in_(mine)).group_by(LabelRow.span_id).subquery()
    there = SessionRow.wrapped_key.is_not(None)
    query = select(SpanRow, LabelRow, func.coalesce(versions.c.versions, 0), there).join(SessionRow)
    query = query.outerjoin(versions, versions.c.span_id == SpanRow.id)
    query = query.outerjoin(LabelRow, LabelRow.id == versions.c.id).where(*where).order_by(SpanRow.id)
    return [(span, newest, count, raw) for span, newest, count, raw in session.execute(query)]


def label_of(row: LabelRow | None) -> Label | None:
    """What a version says."""
    return None if row is None or row.said is None else Label(row.said["said"], row.said["intensity"])


def _seen(session: Session, span: SpanRow) -> Span:
    (found,) = all_stand(session, SpanRow.id == span.id)
    return _view(*found)


def _view(span: SpanRow, newest: LabelRow | None, versions: int, raw: bool) -> Span:
    start_us, end_us = (span.start_us, span.end_us) if newest is None else (newest.start_us, newest.end_us)
    label = label_of(newest)
    said = newest if label is not None else None
    change: Change = "everything" if span.learned_us is None else "next learning"
    return Span(
        id=span.id,
        session=span.session_id,
        start_us=start_us,
        end_us=end_us,
        label=label,
        source=cast(Source, said.source) if said else None,
        edited_us=said.edited_us if said else None,
        clock_state=said.clock_state if said else None,
        predicted=Prediction.from_plain(span.predicted) if said and span.predicted is not None else None,
        versions=versions,
        change=change if raw else "history",
    )


def _check(session: Session, session_id: str, start_us: int, end_us: int) -> None:
    """Raises DataInvalid for bounds that no span of this session can have."""
    check_bounds(start_us, end_us)
    covered = select(func.min(SegmentRow.starts_us), func.max(SegmentRow.ends_us))
    first, last = session.execute(covered.where(SegmentRow.session_id == session_id)).one()
    if first is None:
        raise DataInvalid(Said("session.empty", "nothing of this session was recorded yet that a span could lie in"))
    if not first <= start_us < end_us <= last:
        says = "the span lies outside of its session, which is {seconds:g} seconds long"
        raise DataInvalid(Said("label.outside", says, seconds=(last - first) / 1e6))
