"""What happened during a session, as a stimulus computer, the camera's signal input or the wearer marked it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from client.sessions.retention import RetentionStore
from client.sessions.tables import MarkerRow
from mcoe_model.errors import DataInvalid

MOST_LETTERS = 200


@dataclass(frozen=True)
class Marker:
    """``camera_us`` is None where no camera ran. Its source is a word such as stimulus, signal or wearer."""

    id: int
    session: str | None
    source: str
    text: str
    camera_us: int | None
    utc_us: int
    zone: str


class MarkerStore(RetentionStore):
    """Markers live and go with their session; those of none go as late as a recording would, see `delete_due`."""

    def add_marker(
        self, source: str, text: str, *, session_id: str | None = None, camera_us: int | None = None
    ) -> int:
        """Mark the present; the marker's id. Raises ConsentMissing, Locked, DataMissing, DataInvalid."""
        self.require("labels")
        self._unlocked()
        if not text.strip() or len(text) > MOST_LETTERS:
            raise DataInvalid(f"a marker has 1 to {MOST_LETTERS} letters, not {len(text)}")
        at = self._clock()
        when = {"utc_us": at.utc_us, "monotonic_ns": at.monotonic_ns, "zone": at.zone, "clock_state": at.clock_state}
        with self._writing() as session:
            if session_id is not None:
                self._row(session, session_id)
            row = MarkerRow(session_id=session_id, source=source, text=text, camera_us=camera_us, **when)
            session.add(row)
            session.flush()
            return row.id

    def markers(self, session_id: str | None = None) -> list[Marker]:
        """Those of one session, or all, in the order in which they were made. Raises Locked."""
        self._unlocked()
        query = select(MarkerRow).order_by(MarkerRow.id)
        if session_id is not None:
            query = query.where(MarkerRow.session_id == session_id)
        with self._reading() as session:
            return [
                Marker(row.id, row.session_id, row.source, row.text, row.camera_us, row.utc_us, row.zone)
                for row in session.scalars(query)
            ]
