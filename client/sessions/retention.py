"""How long recordings stay: deleted on time, before only on the wearer's word or, once learned, when they are too many,
and so that nobody can read them.

A session's data key is deleted first: from then on its segments are noise. Then its files go, and it is looked whether
they are gone. What is written to the log names no session.
"""

from __future__ import annotations

import datetime
import logging
import shutil

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from client.said import Said
from client.sessions.database import forget_deleted
from client.sessions.lessons import LessonStore
from client.sessions.tables import RECORDING, MarkerRow, PromptRow, SessionRow, SpanRow
from client.sessions.times import DAY_US, SECOND_US, Moment, zone_of
from client.sessions.values import Recording
from mcoe_model.errors import DataInvalid, DataMissing, DiskFull, LabelFirst, McoeError

KEEP_DAYS = 14
#: The clock's state of a session that was recorded with a wrong clock, once its days are counted by a right one.
PUT_RIGHT = "put right"

#: The times of a question that waits.
_OF_QUESTIONS = (
    PromptRow.event_us, PromptRow.asked_us, PromptRow.expires_us, PromptRow.snoozed_until_us, PromptRow.shown_us,
)  # fmt: skip

log = logging.getLogger(__name__)


class RetentionStore(LessonStore):
    """What goes when."""

    def due(self) -> list[str]:
        """The sessions whose recordings are to be deleted now: over time, or learned and in the way of new ones.

        What was not learned is never in the way, nor what the wearer wants kept.
        """
        at = self._clock()
        with self._writing() as session:
            self._date_anew(session, at)
        now_us = at.utc_us
        there = self._there()
        over = [found.id for found in there if found.raw_until_us <= now_us]
        left = [found for found in there if found.raw_until_us > now_us]
        excess = self.used_bytes() - sum(found.bytes for found in there if found.raw_until_us <= now_us)
        excess -= self.rules.retention.quota_bytes
        for found in left:
            if excess > 0 and found.learned_us is not None and not found.kept:
                over.append(found.id)
                excess -= found.bytes
        return over

    def delete_due(self) -> int:
        """Delete what is `due`, and old markers of no session; how many recordings that were. Needs no key."""
        found = self.due()
        oldest_us = self._clock().utc_us - self.rules.retention.days_after_recording * DAY_US
        with self._writing() as session:
            session.execute(delete(MarkerRow).where(MarkerRow.session_id.is_(None), MarkerRow.utc_us <= oldest_us))
        for session_id in found:
            self.delete_raw(session_id)
        return len(found)

    def delete_raw(self, session_id: str) -> None:
        """Delete a session's recordings for good; what was said of them stays in the wearer's history.

        Raises DataMissing, DataInvalid while it is being recorded, McoeError when files are still there.
        """
        with self._writing() as session:
            row = self._row(session, session_id)
            if row.state == RECORDING:
                raise DataInvalid(f"session {session_id} is being recorded; stop it first")
            row.wrapped_key = None
            row.raw_deleted_us = row.raw_deleted_us or self._clock().utc_us
        self._remove_files(session_id)

    def discard(self, session_id: str) -> tuple[int, ...]:
        """Delete a session for good: recordings, spans, labels, markers; which spans. Raises DataMissing, McoeError."""
        with self._writing() as session:
            spans = session.scalars(select(SpanRow.id).where(SpanRow.session_id == session_id)).all()
            session.delete(self._row(session, session_id))
        self._remove_files(session_id)
        return tuple(spans)

    def keep_more(self, session_id: str, days: int = KEEP_DAYS) -> int:
        """Keep a recording so many days longer; until when (UTC microseconds). Raises DataMissing once it is gone."""
        with self._writing() as session:
            row = self._row(session, session_id)
            if row.wrapped_key is None:
                raise DataMissing(f"the recordings of session {session_id} were deleted")
            row.raw_until_us += days * DAY_US
            row.kept = True
            return row.raw_until_us

    def refuses_to_record(self, free_bytes: int) -> DiskFull | LabelFirst | None:
        """Why nothing can be recorded, naming what would have to go; ``free_bytes`` is what the disk has left.

        DiskFull for a disk or a quota that is full; LabelFirst for a quota full of recordings that wait for labels.
        What is `due` is not looked at: delete it before.
        """
        over = self.used_bytes() - self.rules.retention.quota_bytes  # what is being recorded now counts
        short = self.rules.retention.floor_bytes - free_bytes
        if over < 0 and short <= 0:
            return None
        there = self._there()
        # What has been dealt with is named before what waits for labels; of each, the oldest first.
        enough: list[Recording] = []
        for found in sorted(there, key=_waits):
            if found.bytes and sum(one.bytes for one in enough) <= max(over, short):
                enough.append(found)
        names = ", ".join(f"{found.id} ({_day(found)}, {found.bytes / 1e6:.0f} MB)" for found in enough)
        if short > 0:
            left, free = "the disk has {free} MB left, too few to record; ", round(free_bytes / 1e6)
            if not enough:
                says = left + "nothing recorded can be deleted; free some elsewhere"
                return DiskFull(Said("room.elsewhere", says, free=free))
            return DiskFull(Said("room.disk", left + "delete {names}", free=free, names=names))
        full, quota = "recordings take all of their {quota:g} GB; ", self.rules.retention.quota_bytes / 1e9
        if not enough:
            return DiskFull(Said("room.running", full + "stop the one that is being recorded", quota=quota))
        if all(_waits(found) for found in enough):
            return LabelFirst(Said("room.label", full + "label or delete {names}", quota=quota, names=names))
        return DiskFull(Said("room.quota", full + "delete {names}", quota=quota, names=names))

    def _there(self) -> list[Recording]:
        """The recordings that can be deleted, oldest first."""
        there = [found for found in self.sessions() if found.raw and found.state != RECORDING]
        return sorted(there, key=lambda found: found.started_us)

    def _date_anew(self, session: Session, at: Moment) -> None:
        """Count the days of what was recorded with a wrong clock from now on, as soon as the clock is right.

        A wearable that was off for a week may date a recording a week back; it must not lose that week. Questions about
        it that wait are dated by the monotonic clock.
        """
        if at.clock_state != "synchronised":
            return
        for row in session.scalars(select(SessionRow).where(SessionRow.clock_state == "unsynchronised")):
            row.clock_state = PUT_RIGHT
            if row.learned_us is None:
                latest_us = at.utc_us + self.rules.retention.days_after_recording * DAY_US
                row.raw_until_us = max(row.raw_until_us, latest_us)
            later_us = func.min(started_at_latest(row, at) - row.started_us, at.utc_us - PromptRow.asked_us)
            moved = {column: column + later_us for column in _OF_QUESTIONS}
            waits = (PromptRow.session_id == row.id, PromptRow.ended.is_(None))
            session.execute(update(PromptRow).where(*waits).values(moved))

    def _remove_files(self, session_id: str) -> None:
        folder = self._recordings / session_id
        sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            says = "{folder} could not be deleted; its key is gone, so nothing in it can be read: remove it"
            raise McoeError(Said("session.remains", says, folder=str(folder)))
        forget_deleted(self.engine, self._database)
        log.info("a recording was deleted: its key, %d files, %.1f MB; verified", len(sizes), sum(sizes) / 1e6)


def started_at_latest(row: SessionRow, at: Moment) -> int:
    """When a session that was recorded with a wrong clock started, by a right one that says ``at`` now.

    The monotonic clock begins anew with each boot: of an earlier one the session may be older than it says, never less.
    """
    return at.utc_us - max(0, at.monotonic_ns - row.started_monotonic_ns) // 1000


def _waits(found: Recording) -> bool:
    """Whether nobody has said anything of a recording, or of a part of it that was marked."""
    return found.labelled == 0 or found.labelled < found.spans


def _day(found: Recording) -> str:
    """The day of a recording, where it was made."""
    return f"{datetime.datetime.fromtimestamp(found.started_us / SECOND_US, zone_of(found.zone)):%Y-%m-%d}"
