"""Sessions and their sealed segments.

A segment comes as a plain file in memory (tmpfs). Its row is written first and does not count yet; then the file is
sealed; then the row counts; then the plain file goes. Whenever a process dies, `recover` finds what was meant.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from client.sessions.consents import ConsentStore
from client.sessions.tables import (
    PARTIAL,
    RECORDING,
    WHOLE,
    ClockRow,
    LabelRow,
    SegmentRow,
    SessionRow,
    SessionState,
    SpanRow,
)
from client.sessions.times import DAY_US, Moment
from client.sessions.values import Recording, Segment
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import ConsentMissing, DataMissing, DiskFull
from mcoe_model.sealed import KEY_BYTES, read_sealed, write_sealed

_ID_BYTES, _PORTION_BYTES = 8, 1 << 20


class RecordingStore(ConsentStore):
    """What was recorded."""

    def begin_session(self, camera: str, geometry: Geometry) -> str:
        """A new session's id, with a key of its own. ``camera`` is a model's name, never a serial.

        Raises ConsentMissing, Locked, DiskFull.
        """
        self.require("capture")
        session_id = secrets.token_hex(_ID_BYTES)
        wrapped = self._unlocked().wrap(os.urandom(KEY_BYTES), _context(session_id))
        at = self._clock()
        with self._writing() as session:
            session.add(
                SessionRow(
                    id=session_id,
                    state=RECORDING,
                    camera=camera,
                    geometry=asdict(geometry),
                    wrapped_key=wrapped,
                    zone=at.zone,
                    clock_state=at.clock_state,
                    started_us=at.utc_us,
                    started_monotonic_ns=at.monotonic_ns,
                    raw_until_us=at.utc_us + self.rules.retention.days_after_recording * DAY_US,
                )
            )
        return session_id

    def add_clock(self, session_id: str, camera_us: int, at: Moment, stepped: bool = False) -> None:
        """What the camera's clock and this device's said at one time. ``stepped``: this device's was set meanwhile."""
        when = {"utc_us": at.utc_us, "monotonic_ns": at.monotonic_ns, "zone": at.zone, "clock_state": at.clock_state}
        with self._writing() as session:
            self._row(session, session_id)
            session.add(ClockRow(session_id=session_id, camera_us=camera_us, stepped=stepped, **when))

    def add_segment(
        self,
        session_id: str,
        number: int,
        plain: Path,
        starts_us: int,
        ends_us: int,
        *,
        events: int,
        frames: int,
        imu: int = 0,
        triggers: int = 0,
    ) -> Segment:
        """Seal a finished plain file and remove it. May be repeated: a segment that is there is never written over.

        Raises ConsentMissing once that was withdrawn, DataMissing for a session that was discarded: the plain file is
        then gone. Raises Locked, and DiskFull, after which the plain file is still there and nothing else.
        """
        try:
            self.require_given("capture")
            key = self._data_key(session_id)
        except (ConsentMissing, DataMissing):
            plain.unlink(missing_ok=True)
            raise
        if not plain.is_file():
            raise DataMissing(f"the file of segment {number} is not there; the recorder has removed it")
        counts = {"events": events, "frames": frames, "imu": imu, "triggers": triggers}
        with self._writing() as session:
            there = session.get(SegmentRow, (session_id, number))
            if there is not None and there.sha256 is not None:
                plain.unlink()
                return _segment(there)
            row = SegmentRow(session_id=session_id, number=number, starts_us=starts_us, ends_us=ends_us, **counts)
            row.plain = plain.name
            session.merge(row)
        try:
            return self._seal(session_id, number, plain, key)
        except DiskFull:
            self._path(session_id, number).unlink(missing_ok=True)
            with suppress(DiskFull), self._writing() as session:
                session.delete(session.get_one(SegmentRow, (session_id, number)))
            raise

    def end_session(self, session_id: str, partial: bool = False, why: str = "") -> None:
        """Nothing more comes. ``why`` is a word for what cut it short. A session that has ended stays as it is."""
        at = self._clock()
        with self._writing() as session:
            row = self._row(session, session_id)
            if row.state == RECORDING:
                row.state = PARTIAL if partial else WHOLE
                row.ended_us, row.ended_monotonic_ns, row.ended_why = at.utc_us, at.monotonic_ns, why or None

    def flag(self, session_id: str, flaw: str) -> None:
        """Nothing is to be learned from this session, for this reason (one word, such as out-of-sync)."""
        with self._writing() as session:
            self._row(session, session_id).flaw = flaw

    def session(self, session_id: str) -> Recording:
        """Raises DataMissing."""
        with self._reading() as session:
            return _recordings(session, [self._row(session, session_id)])[0]

    def sessions(self) -> list[Recording]:
        """All of them, newest first."""
        query = select(SessionRow).order_by(SessionRow.started_us.desc(), SessionRow.id)
        with self._reading() as session:
            return _recordings(session, session.scalars(query).all())

    def segments(self, session_id: str) -> list[Segment]:
        """Those that can be opened, in order."""
        with self._reading() as session:
            if self._row(session, session_id).wrapped_key is None:
                return []
            return [_segment(row) for row in session.scalars(_whole_segments(session_id))]

    def open_segment(self, segment: Segment) -> Iterator[bytes]:
        """The plain bytes of an AEDAT4 file, in memory only.

        Raises Locked, DataMissing for a recording that was deleted, DataInvalid for one that was changed.
        """
        key = self._data_key(segment.session)
        path = self._path(segment.session, segment.number)
        yield from read_sealed(path, key, _context(segment.session, segment.number))

    def used_bytes(self) -> int:
        """How much all recordings take."""
        query = select(func.coalesce(func.sum(SegmentRow.bytes), 0))
        with self._reading() as session:
            return int(session.scalar(query.join(SessionRow).where(SessionRow.wrapped_key.is_not(None))) or 0)

    def _seal(self, session_id: str, number: int, plain: Path, key: bytes) -> Segment:
        path = self._path(session_id, number)
        write_sealed(path, key, _context(session_id, number), _portions(plain))
        segment = self._count(session_id, number, path)
        plain.unlink(missing_ok=True)
        return segment

    def _count(self, session_id: str, number: int, path: Path) -> Segment:
        """The sealed file is on the disk: from now on its row counts."""
        digest = hashlib.sha256()
        for portion in _portions(path):
            digest.update(portion)
        with self._writing() as session:
            row = session.get_one(SegmentRow, (session_id, number))
            row.sha256, row.bytes, row.plain = digest.hexdigest(), path.stat().st_size, None
            _start_with_picture(session, self._row(session, session_id))
            return _segment(row)

    def _data_key(self, session_id: str) -> bytes:
        key = self._unlocked()
        with self._reading() as session:
            wrapped = self._row(session, session_id).wrapped_key
        if wrapped is None:
            raise DataMissing(f"the recordings of session {session_id} were deleted")
        return key.unwrap(wrapped, _context(session_id))

    def _path(self, session_id: str, number: int) -> Path:
        return self._recordings / session_id / f"{number:06d}.sealed"


def _context(session_id: str, number: int | None = None) -> str:
    """What a sealed file, or without a number a wrapped key, is bound to."""
    return f"session {session_id}" if number is None else f"segment {number} of session {session_id}"


def _start_with_picture(session: Session, row: SessionRow) -> None:
    """A session starts with its first picture: the last seconds were seen before they were asked for.

    By the monotonic clock, which was not set in between.
    """
    clock = session.scalars(select(ClockRow).where(ClockRow.session_id == row.id).order_by(ClockRow.id)).first()
    first = select(func.min(SegmentRow.starts_us))
    first_us = session.scalar(first.where(SegmentRow.session_id == row.id, SegmentRow.sha256.is_not(None)))
    if clock is not None and first_us is not None:
        starts_ns = clock.monotonic_ns + (first_us - clock.camera_us) * 1000
        row.started_us += (starts_ns - row.started_monotonic_ns) // 1000
        row.started_monotonic_ns = starts_ns


def _whole_segments(session_id: str) -> Select[SegmentRow]:
    query = select(SegmentRow).where(SegmentRow.session_id == session_id, SegmentRow.sha256.is_not(None))
    return query.order_by(SegmentRow.number)


def _portions(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while portion := file.read(_PORTION_BYTES):
            yield portion


def _segment(row: SegmentRow) -> Segment:
    counts = (row.events, row.frames, row.imu, row.triggers)
    return Segment(row.session_id, row.number, row.starts_us, row.ends_us, *counts, row.bytes or 0)


def _recordings(session: Session, rows: Sequence[SessionRow]) -> list[Recording]:
    """What is known of these sessions."""
    ids = [row.id for row in rows]
    covered = select(
        SegmentRow.session_id,
        func.min(SegmentRow.starts_us),
        func.max(SegmentRow.ends_us),
        func.count(),
        func.sum(SegmentRow.bytes),
    ).where(SegmentRow.session_id.in_(ids), SegmentRow.sha256.is_not(None))
    parts = {found[0]: found[1:] for found in session.execute(covered.group_by(SegmentRow.session_id))}
    newest = select(func.max(LabelRow.id).label("id")).where(~LabelRow.undone).group_by(LabelRow.span_id).subquery()
    labelled = select(LabelRow.span_id).join(newest, newest.c.id == LabelRow.id).where(LabelRow.said.is_not(None))
    said = labelled.subquery()
    counted = select(SpanRow.session_id, func.count(), func.count(said.c.span_id))
    counted = counted.outerjoin(said, said.c.span_id == SpanRow.id)
    marked = counted.where(SpanRow.session_id.in_(ids)).group_by(SpanRow.session_id)
    spans = {found[0]: found[1:] for found in session.execute(marked)}
    return [_recording(row, parts.get(row.id), spans.get(row.id, (0, 0))) for row in rows]


def _recording(row: SessionRow, part: tuple[int, int, int, int | None] | None, spans: tuple[int, int]) -> Recording:
    starts_us, ends_us, segments, size = part or (None, None, 0, 0)
    return Recording(
        id=row.id,
        state=cast(SessionState, row.state),
        camera=row.camera,
        geometry_values=row.geometry,
        zone=row.zone,
        clock_state=row.clock_state,
        started_us=row.started_us,
        ended_us=row.ended_us,
        ended_why=row.ended_why,
        starts_us=starts_us,
        ends_us=ends_us,
        segments=segments,
        bytes=(size or 0) if row.wrapped_key is not None else 0,
        spans=spans[0],
        labelled=spans[1],
        flaw=row.flaw,
        learned_us=row.learned_us,
        raw=row.wrapped_key is not None,
        raw_until_us=row.raw_until_us,
        kept=row.kept,
    )
