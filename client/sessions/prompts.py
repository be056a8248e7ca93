"""Questions for labels: they wait in a queue until the wearer looks, and are never pushed.

A question goes away by itself when its span is labelled or discarded, and when it has waited too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from client.sessions.markers import MarkerStore
from client.sessions.retention import PUT_RIGHT, started_at_latest
from client.sessions.tables import PromptRow, SegmentRow, SessionRow
from client.sessions.times import HOUR_US, SECOND_US, Moment, believed
from mcoe_model.errors import DataMissing


@dataclass(frozen=True)
class Prompt:
    """A question about a span. Times are UTC microseconds; ``event_us``: when that was which it asks about.

    ``clock_state`` is that of the clock which the span was recorded with.
    """

    id: int
    session: str
    span: int
    why: str
    event_us: int
    asked_us: int
    expires_us: int
    shown_us: int | None
    answered_us: int | None
    ended: str | None
    clock_state: str

    @property
    def delay_us(self) -> int | None:
        """How long after the event the wearer answered: what one remembers of a feeling fades.

        None without an answer, and where the clocks cannot tell.
        """
        if self.answered_us is None or self.answered_us < self.event_us or not believed(self.clock_state):
            return None
        return self.answered_us - self.event_us


class PromptStore(MarkerStore):
    """The queue."""

    def ask(self, span_id: int, why: str = "recorded") -> int | None:
        """Let a question wait; its id. None when enough was asked today, or the span waits for an answer already.

        Raises DataMissing, Locked.
        """
        span = self.span(span_id)
        at = self._clock()
        day = at.local.date().isoformat()
        with self._writing() as session:
            self._date_anew(session, at)
            asked = session.scalar(select(func.count()).where(PromptRow.local_day == day)) or 0
            waits = select(PromptRow.id).where(PromptRow.span_id == span_id, PromptRow.ended.is_(None))
            if asked >= self.rules.prompts.per_day or session.scalar(waits) is not None:
                return None
            starts_us = session.scalar(
                select(func.min(SegmentRow.starts_us)).where(SegmentRow.session_id == span.session)
            )
            since_us = 0 if starts_us is None else span.end_us - starts_us
            recorded = self._row(session, span.session)
            started_us = started_at_latest(recorded, at) if recorded.clock_state == PUT_RIGHT else recorded.started_us
            row = PromptRow(
                session_id=span.session,
                span_id=span_id,
                why=why,
                local_day=day,
                event_us=started_us + since_us,
                asked_us=at.utc_us,
                expires_us=at.utc_us + self.rules.prompts.expires_hours * HOUR_US,
            )
            session.add(row)
            session.flush()
            return row.id

    def waiting_prompts(self) -> list[Prompt]:
        """The questions that may be shown now, oldest first: none in the quiet time."""
        at = self._clock()
        with self._writing() as session:
            self._date_anew(session, at)
            _expire(session, at)
            waiting = _prompts(session, _waiting(session, at))
        return [] if self.rules.prompts.is_quiet(at.local.hour * 60 + at.local.minute) else waiting

    def show_prompts(self) -> list[Prompt]:
        """The same, and they count as shown from now on."""
        ids = {prompt.id for prompt in self.waiting_prompts()}
        at = self._clock()
        with self._writing() as session:
            rows = [row for row in _waiting(session, at) if row.id in ids]
            for row in rows:
                row.shown_us = row.shown_us or at.utc_us
            return _prompts(session, rows)

    def snooze(self, prompt_id: int) -> None:
        """Ask again later. Raises DataMissing for a question that is over."""
        until_us = self._clock().utc_us + self.rules.prompts.snooze_minutes * 60 * SECOND_US
        with self._writing() as session:
            row = session.get(PromptRow, prompt_id)
            if row is None or row.ended is not None:
                raise DataMissing(f"question {prompt_id} does not wait any more")
            row.snoozed_until_us = until_us

    def prompts(self) -> list[Prompt]:
        """Every question that was ever asked, oldest first. Nothing is changed: who may only read calls this, too."""
        with self._reading() as session:
            return _prompts(session, session.scalars(select(PromptRow).order_by(PromptRow.id)).all())


def _expire(session: Session, at: Moment) -> None:
    over = (PromptRow.ended.is_(None), PromptRow.expires_us <= at.utc_us)
    session.execute(update(PromptRow).where(*over).values(ended="expired"))


def _waiting(session: Session, at: Moment) -> list[PromptRow]:
    query = select(PromptRow).where(PromptRow.ended.is_(None), PromptRow.expires_us > at.utc_us)
    query = query.where(func.coalesce(PromptRow.snoozed_until_us, 0) <= at.utc_us)
    return list(session.scalars(query.order_by(PromptRow.id)))


def _prompts(session: Session, rows: Sequence[PromptRow]) -> list[Prompt]:
    recorded = select(SessionRow.id, SessionRow.clock_state).where(SessionRow.id.in_({row.session_id for row in rows}))
    states = {found[0]: found[1] for found in session.execute(recorded)}
    return [
        Prompt(
            id=row.id,
            session=row.session_id,
            span=row.span_id,
            why=row.why,
            event_us=row.event_us,
            asked_us=row.asked_us,
            expires_us=row.expires_us,
            shown_us=row.shown_us,
            answered_us=row.answered_us,
            ended=row.ended,
            clock_state=states[row.session_id],
        )
        for row in rows
    ]
