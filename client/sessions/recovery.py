"""What a process that died left behind: finished, or counted as partial; nothing plain and nothing ownerless stays."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from client.sessions.database import forget_deleted
from client.sessions.retention import RetentionStore
from client.sessions.tables import PARTIAL, RECORDING, RequestRow, SegmentRow, SessionRow
from client.sessions.times import DAY_US
from mcoe_model.errors import ConsentMissing, DataMissing, Locked, McoeError

#: Days that a form's token is remembered.
_TOKEN_DAYS = 7

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """``partial``: the sessions that had not ended; then how many segments were finished, and how many were lost;
    how many ownerless files were removed; and how many plain ones.
    """

    partial: tuple[str, ...]
    finished: int
    lost: int
    ownerless: int
    plain: int


class RecoveryStore(RetentionStore):
    """Call `recover` when the store was opened and again when it was unlocked, before anything is recorded."""

    def recover(self, memory: Path | None = None, unsealed: Collection[str] = ()) -> Recovered:
        """Put in order what another process left. ``memory``: the folder of plain files, all of which are removed.

        While the store is locked, plain files that can still be sealed wait for the key. ``unsealed``: sessions whose
        plain files stay, and will be segments. Raises DiskFull.
        """
        finished, lost, waiting = self._finish_segments(memory)
        partial = self._end_sessions(unsealed)
        ownerless = self._remove_ownerless()
        plain = 0
        for path in sorted(memory.glob("*.aedat4")) if memory is not None else []:
            if path.name not in waiting and path.name.rpartition("-")[0] not in unsealed:
                path.unlink(missing_ok=True)
                plain += 1
        with self._writing() as session:
            over_us = self._clock().utc_us - _TOKEN_DAYS * DAY_US
            session.execute(delete(RequestRow).where(RequestRow.utc_us < over_us))
        with suppress(McoeError):  # while others read; the next deletion sees to it
            forget_deleted(self.engine, self._database)
        recovered = Recovered(partial, finished, lost, ownerless, plain)
        if recovered != Recovered((), 0, 0, 0, 0):
            counts = (len(partial), finished, lost, ownerless, plain)
            log.warning("found %d open sessions; segments: %d finished, %d lost; removed: %d sealed, %d plain", *counts)
        return recovered

    def _finish_segments(self, memory: Path | None) -> tuple[int, int, set[str]]:
        """Seal what was not sealed yet, as far as it is still there."""
        with self._reading() as session:
            pending = [
                (row.session_id, row.number, row.plain or "")
                for row in session.scalars(select(SegmentRow).where(SegmentRow.sha256.is_(None)))
            ]
        finished = lost = 0
        waiting: set[str] = set()
        for session_id, number, name in pending:
            sealed, plain = self._path(session_id, number), None if memory is None else memory / name
            try:
                if sealed.exists():  # written whole: it was renamed
                    self._count(session_id, number, sealed)
                elif plain is not None and plain.exists():
                    self.require_given("capture")
                    self._seal(session_id, number, plain, self._data_key(session_id))
                else:
                    raise DataMissing("neither the sealed file nor the plain one is there")
                finished += 1
            except Locked:
                waiting.add(name)
            except (ConsentMissing, DataMissing):
                with self._writing() as session:
                    session.delete(session.get_one(SegmentRow, (session_id, number)))
                lost += 1
        return finished, lost, waiting

    def _end_sessions(self, unsealed: Collection[str]) -> tuple[str, ...]:
        """A session that nobody records any more is partial; one of which nothing was written is nothing."""
        ended = []
        with self._writing() as session:
            for row in session.scalars(select(SessionRow).where(SessionRow.state == RECORDING)).all():
                length_us = _length_us(session, row.id)
                if length_us is None:
                    if row.id not in unsealed:
                        session.delete(row)
                    continue
                row.state, row.ended_why, row.ended_us = PARTIAL, "process ended", row.started_us + length_us
                ended.append(row.id)
        return tuple(ended)

    def _remove_ownerless(self) -> int:
        """Files that no row names: of sessions that were deleted, and halves that were never renamed."""
        with self._reading() as session:
            keyed = set(session.scalars(select(SessionRow.id).where(SessionRow.wrapped_key.is_not(None))))
            named = [(row.session_id, row.number) for row in session.scalars(select(SegmentRow))]
        owned = {self._path(session_id, number) for session_id, number in named if session_id in keyed}
        removed = 0
        for folder in sorted(self._recordings.glob("*")):
            found = [path for path in folder.iterdir() if path not in owned]
            for path in found:
                path.unlink()
            removed += len(found)
            if folder.name not in keyed:
                shutil.rmtree(folder)
        return removed


def _length_us(session: Session, session_id: str) -> int | None:
    """From the start of the first segment to the end of the last; None without any."""
    ends = select(func.max(SegmentRow.ends_us) - func.min(SegmentRow.starts_us))
    return session.scalar(ends.where(SegmentRow.session_id == session_id))
