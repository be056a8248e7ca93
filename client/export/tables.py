"""What is said of a study's spans, as CSV tables with a codebook beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from client.export.everything import ExportFile
from client.export.study_spans import StudySpan
from mcoe_model.names import EMOTIONS

_LABELS = " | ".join((*EMOTIONS, "other"))
_NO_DELAY = "empty: a clock was wrong"
#: Every column: file, name, unit, meaning, values.
_SPANS = (
    ("span", "", "number of the span in this export, which names its files", "1, 2, ..."),
    ("wearer", "", "pseudonym of the wearer for this study, the same in every export", "S and 10 hexadecimal digits"),
    ("session", "", "pseudonym of the recording that the span is a part of", "8 hexadecimal digits"),
    ("day", "days", "since the wearer's first recording, by the calendar", "0, 1, ..."),
    ("starts", "s", "from the recording's start to the span's", ""),
    ("duration", "s", "length of the span", "0.5 to 30"),
    ("label", "", "what the wearer called it last; other: something else, or unsure", _LABELS),
    ("intensity", "", "how strong the wearer says it was; empty: not said", "1 to 5"),
    ("source", "", "who said it: the wearer unasked, or when asked, or the protocol", "wearer | prompt | protocol"),
    ("label_delay", "min", f"whole minutes from the span's end to its label; {_NO_DELAY}", ""),
    ("versions", "", "how often it was labelled or trimmed; versions.csv has them all", "1, 2, ..."),
    ("predicted", "", "what the wearable's model took it for; empty: it did not run", " | ".join(EMOTIONS)),
    ("confidence", "", "the model's probability of that; empty: it did not run", "0 to 1"),
    ("flaw", "", "why the recording is doubtful; empty: nothing known", "out-of-sync"),
    ("eye", "", "which eye was recorded", "left | right"),
    ("x", "px", "left edge of the square around the eye on the sensor, before it is turned", ""),
    ("y", "px", "its upper edge", ""),
    ("side", "px", "its side", ""),
    ("rotation", "degrees", "by which the square is turned", ""),
)
_VERSIONS = (
    ("span", "", "number of the span", "1, 2, ..."),
    ("version", "", "1 is the first", "1, 2, ..."),
    ("starts", "s", "from the recording's start to the span's, in this version", ""),
    ("duration", "s", "length of the span in this version", "0.5 to 30"),
    ("label", "", "what the wearer called it; empty: only trimmed", f"{_LABELS} | skip"),
    ("intensity", "", "how strong; empty: not said", "1 to 5"),
    ("source", "", "who said it", "wearer | prompt | protocol"),
    ("label_delay", "min", f"whole minutes from the span's end to this version; {_NO_DELAY}", ""),
    ("undone", "", "whether the wearer took it back", "0 | 1"),
)
_MARKERS = (
    ("session", "", "pseudonym of the recording", "8 hexadecimal digits"),
    ("marker", "", "number of the marker in its recording, in the order in which they came", "1, 2, ..."),
    ("at", "s", "from the recording's start to the marker; what it said stays with the wearer", ""),
)
_COLUMNS = {"spans.csv": _SPANS, "versions.csv": _VERSIONS, "markers.csv": _MARKERS}
Column = tuple[str, str, str, str]


def span_tables(spans: Sequence[StudySpan], more: dict[str, Sequence[Column]]) -> Iterable[ExportFile]:
    """spans.csv, versions.csv, markers.csv and codebook.csv, which also explains the columns of ``more`` files."""
    yield "spans.csv", table(names(_SPANS), (_span(span) for span in spans))
    yield "versions.csv", table(names(_VERSIONS), (row for span in spans for row in _versions(span)))
    sessions = {span.session: span for span in spans}.values()
    yield "markers.csv", table(names(_MARKERS), (row for one in sessions for row in _markers(one)))
    explained = [(file, *column) for file, columns in (_COLUMNS | more).items() for column in columns]
    yield "codebook.csv", table(("file", "column", "unit", "meaning", "values"), explained)


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Of these columns."""
    return tuple(column[0] for column in columns)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """As CSV (RFC 4180) in UTF-8; None is empty. Rows may come one by one."""
    content = io.BytesIO()
    text = io.TextIOWrapper(content, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    text.flush()
    return content.getvalue()


def _span(one: StudySpan) -> tuple[object, ...]:
    span, label = one.span, one.span.label
    assert label is not None and span.edited_us is not None
    guess = span.predicted
    predicted = (None, None) if guess is None else (guess.emotion, f"{guess.confidence:.4f}")
    where = (one.number, one.wearer, one.session, one.day, f"{one.starts_s:.6f}", f"{one.seconds:.6f}")
    delay = one.minutes_until(span.edited_us, span.clock_state)
    said = (label.said, label.intensity, span.source, delay, span.versions)
    square = (one.recording.geometry_values[name] for name in ("eye", "x", "y", "side", "rotation"))
    return (*where, *said, *predicted, one.recording.flaw, *square)


def _versions(one: StudySpan) -> Iterable[tuple[object, ...]]:
    begins_us = one.recording.starts_us or 0
    for number, version in enumerate(one.versions, start=1):
        label = version.label
        bounds = f"{(version.start_us - begins_us) / 1e6:.6f}", f"{(version.end_us - version.start_us) / 1e6:.6f}"
        said = (None, None) if label is None else (label.said, label.intensity)
        edited = (version.source, one.minutes_until(version.edited_us, version.clock_state), int(version.undone))
        yield one.number, number, *bounds, *said, *edited


def _markers(one: StudySpan) -> Iterable[tuple[object, ...]]:
    begins_us = one.recording.starts_us or 0
    for number, at_us in enumerate(one.markers_us, start=1):
        yield one.session, number, f"{(at_us - begins_us) / 1e6:.6f}"
