"""What was said and seen over time, for exports: every version of a span, the model's guesses, the clocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import func, select

from client.sessions.prompts import PromptStore
from client.sessions.spans import label_of
from client.sessions.tables import (
    RECORDING,
    ClockRow,
    LabelRow,
    MarkerRow,
    PromptRow,
    SessionRow,
    SpanRow,
    TrainingRow,
)
from client.sessions.times import DAY_US, SECOND_US, believed
from client.sessions.values import SKIP, Label, Prediction, Source, Training


@dataclass(frozen=True)
class Version:
    """One version of a span; ``undone``: the wearer took it back. ``edited_us`` is UTC, the bounds are the camera's.

    ``clock_state`` is None where an earlier program wrote it down.
    """

    start_us: int
    end_us: int
    label: Label | None
    source: Source
    edited_us: int
    zone: str
    clock_state: str | None
    undone: bool


@dataclass(frozen=True)
class ClockReading:
    """What two clocks said at one time: the camera's, and this device's. ``stepped``: the latter was set meanwhile."""

    camera_us: int
    utc_us: int
    monotonic_ns: int
    zone: str
    clock_state: str
    stepped: bool


@dataclass(frozen=True)
class Progress:
    """Counts of what there is and what became of it.

    ``minutes`` of recordings that are still there, spans that were ``labelled`` or ``skipped``, questions that
    ``expired``. ``oldest_day``: days since 1970 of the oldest recording that can be learned and is not, None without.
    """

    minutes: int
    labelled: int
    skipped: int
    expired: int
    oldest_day: int | None


class HistoryStore(PromptStore):
    """Questions about the past; nothing is changed."""

    def versions(self, span_id: int) -> list[Version]:
        """Everything that was said of a span and how it was trimmed, oldest first. Raises Locked."""
        self._unlocked()
        query = select(LabelRow).where(LabelRow.span_id == span_id).order_by(LabelRow.id)
        with self._reading() as session:
            return [
                Version(
                    start_us=row.start_us,
                    end_us=row.end_us,
                    label=label_of(row),
                    source=cast(Source, row.source),
                    edited_us=row.edited_us,
                    zone=row.zone,
                    clock_state=row.clock_state,
                    undone=row.undone,
                )
                for row in session.scalars(query)
            ]

    def predictions(self, session_id: str) -> dict[int, Prediction]:
        """The model's guesses of a session's spans, labelled or not. Raises Locked."""
        self._unlocked()
        query = select(SpanRow).where(SpanRow.session_id == session_id)
        with self._reading() as session:
            rows = session.scalars(query).all()
            return {row.id: Prediction.from_plain(row.predicted) for row in rows if row.predicted is not None}

    def clocks(self, session_id: str) -> list[ClockReading]:
        """Every reading of a session, in order."""
        query = select(ClockRow).where(ClockRow.session_id == session_id).order_by(ClockRow.id)
        with self._reading() as session:
            return [
                ClockReading(row.camera_us, row.utc_us, row.monotonic_ns, row.zone, row.clock_state, row.stepped)
                for row in session.scalars(query)
            ]

    def counts(self) -> dict[str, int]:
        """How many rows there are of what a wearer makes; needs no key."""
        tables = {"sessions": SessionRow, "spans": SpanRow, "labels": LabelRow, "markers": MarkerRow,
                  "prompts": PromptRow, "trainings": TrainingRow}  # fmt: skip
        with self._reading() as session:
            counted = {name: select(func.count()).select_from(table) for name, table in tables.items()}
            return {name: session.scalars(query).one() for name, query in counted.items()}

    def progress(self) -> Progress:
        """How the wearer gets on with recording, labelling and learning. Raises Locked."""
        self._unlocked()
        there = [found for found in self.sessions() if found.raw]
        lengths = [one.ends_us - (one.starts_us or 0) for one in there if one.ends_us is not None]
        newest = select(func.max(LabelRow.id)).where(~LabelRow.undone).group_by(LabelRow.span_id)
        waits = [
            found.started_us // DAY_US
            for found in there
            if found.learned_us is None and found.flaw is None and found.state != RECORDING
            and believed(found.clock_state)
        ]  # fmt: skip
        with self._reading() as session:
            rows = session.scalars(select(LabelRow.said).where(LabelRow.id.in_(newest)))
            said = [row["said"] for row in rows if row is not None]
            expired = session.scalars(select(func.count()).where(PromptRow.ended == "expired")).one()
        return Progress(
            minutes=sum(lengths) // (60 * SECOND_US),
            labelled=len(said) - said.count(SKIP),
            skipped=said.count(SKIP),
            expired=expired,
            oldest_day=min(waits, default=None),
        )

    def trainings(self) -> list[Training]:
        """Every one, oldest first. Raises Locked."""
        self._unlocked()
        with self._reading() as session:
            rows = session.scalars(select(TrainingRow).order_by(TrainingRow.id))
            return [Training(**{name: getattr(row, name) for name in Training.__dataclass_fields__}) for row in rows]
