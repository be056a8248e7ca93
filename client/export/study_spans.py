"""Which spans a study gets, and what it is told of each: no name, serial or id, and no time of the day.

The wearer's and the sessions' names are pseudonyms that the device key and the study's key make together: the same in
every export to one study, others for another one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from client.keys import DeviceKey
from client.sessions import RECORDING, Recording, Segment, Span, Store, Version
from client.sessions.times import SECOND_US, believed, zone_of
from client.sessions.values import SKIP
from mcoe_model.errors import DataMissing
from mcoe_model.study import StudyKey

_MINUTE_US = 60 * SECOND_US
#: So long before a span its pictures begin at the latest: a window begins with the frame before it.
_BEFORE_US = SECOND_US


@dataclass(frozen=True)
class StudySpan:
    """A labelled span. ``number`` counts from 1; ``session`` and ``wearer`` are pseudonyms.

    ``day``: days since the wearer's first session, by the calendar; ``versions``: what was said of it, oldest first;
    ``markers_us``: when something was marked in its session, by the camera's clock. Their texts stay.
    """

    number: int
    wearer: str
    session: str
    day: int
    span: Span
    versions: tuple[Version, ...]
    recording: Recording
    segments: tuple[Segment, ...]
    markers_us: tuple[int, ...]

    @property
    def said(self) -> str:
        """One of the seven emotions, or other."""
        assert self.span.label is not None
        return self.span.label.said

    @property
    def starts_s(self) -> float:
        """Seconds from the session's start to its own."""
        return (self.span.start_us - (self.recording.starts_us or 0)) / SECOND_US

    @property
    def seconds(self) -> float:
        return (self.span.end_us - self.span.start_us) / SECOND_US

    def minutes_until(self, utc_us: int, clock_state: str | None) -> int | None:
        """Whole minutes from its end to a later time, by a clock of this state; None where the clocks cannot tell."""
        end_us = self.recording.started_us + self.span.end_us - (self.recording.starts_us or 0)
        right = believed(self.recording.clock_state) and (clock_state is None or believed(clock_state))
        if utc_us < end_us or not right:
            return None
        return (utc_us - end_us) // _MINUTE_US

    @property
    def sealed_bytes(self) -> int:
        """How much its recordings take, sealed."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def events(self) -> int:
        """At most so many events are in it."""
        return sum(segment.events for segment in self.segments)


def require_agreement(store: Store) -> None:
    """Raises ConsentMissing unless the wearer agreed to labels, and to hand them over."""
    for kind in ("labels", "export"):
        store.require(kind)


def study_spans(store: Store, key: DeviceKey, study: StudyKey) -> list[StudySpan]:
    """The wearer's labelled spans whose recordings are there, sessions in their order.

    Raises as `require_agreement`, Locked, and DataMissing when there is nothing to hand over.
    """
    require_agreement(store)
    wearer = f"S{key.derive(f'study {study.fingerprint} wearer').hex()[:10]}"
    sessions = sorted(store.sessions(), key=lambda session: session.started_us)
    found: list[StudySpan] = []
    for session in sessions:
        if not session.raw or session.state == RECORDING:
            continue
        pseudonym = key.derive(f"study {study.fingerprint} session {session.id}").hex()[:8]
        day = (_local(session) - _local(sessions[0])).days
        segments = store.segments(session.id)
        markers_us = tuple(one.camera_us for one in store.markers(session.id) if one.camera_us is not None)
        for span in store.spans(session.id):
            if span.label is None or span.label.said == SKIP:
                continue
            number, versions = len(found) + 1, tuple(store.versions(span.id))
            covering = tuple(_covering(segments, span))
            found.append(StudySpan(number, wearer, pseudonym, day, span, versions, session, covering, markers_us))
    if not found:
        raise DataMissing("there is no labelled recording to hand over; record and label first")
    return found


def _covering(segments: Iterable[Segment], span: Span) -> Iterable[Segment]:
    first, last = span.start_us - _BEFORE_US, span.end_us
    return (segment for segment in segments if segment.ends_us >= first and segment.starts_us <= last)


def _local(session: Recording) -> datetime.date:
    return datetime.datetime.fromtimestamp(session.started_us / SECOND_US, zone_of(session.zone)).date()
