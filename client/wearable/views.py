"""The store's rows as the page shows them: times within a session count from its start."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from client.page import wearable_protocol as page
from client.sessions import Recording, Span


def span_view(span: Span, recording: Recording) -> page.Span:
    """A span beside the session that it is a part of."""
    start = recording.starts_us or 0
    return page.Span(
        span.id,
        span.start_us - start,
        span.end_us - start,
        span.label.said if span.label is not None else None,
        span.label.intensity if span.label is not None else None,
        span.predicted.emotion if span.predicted is not None else None,
        span.versions,
        span.change,
    )


def session_view(recording: Recording, spans: Sequence[Span]) -> page.Session:
    """A session with its spans, in the order of their start."""
    seconds = 0.0
    if recording.starts_us is not None and recording.ends_us is not None:
        seconds = (recording.ends_us - recording.starts_us) / 1e6
    return page.Session(
        recording.id,
        utc(recording.started_us),
        seconds,
        recording.state,
        recording.bytes,
        utc(recording.raw_until_us) if recording.raw else None,
        not recording.raw,
        tuple(span_view(span, recording) for span in spans),
    )


def utc(us: int) -> datetime.datetime:
    """Microseconds since 1970 as a time."""
    return datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC)
