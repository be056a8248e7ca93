"""Spans as tables: what was said of each, its events, and when its frames were taken. Pictures have no place in CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from client.export.everything import ExportFile
from client.export.replayed import streams
from client.export.study_spans import StudySpan
from client.export.tables import Column, names, span_tables, table
from client.sessions import Store
from mcoe_model.progress import Progress

_EVENTS: tuple[Column, ...] = (
    ("time", "us", "since the span's start", ""),
    ("x", "px", "from the sensor's left", "0 to 345"),
    ("y", "px", "from the sensor's top", "0 to 259"),
    ("polarity", "", "1: brighter, 0: darker", "0 | 1"),
)
_FRAMES: tuple[Column, ...] = (
    ("span", "", "number of the span", "1, 2, ..."),
    ("time", "us", "from the span's start to the start of exposure", ""),
    ("exposure", "us", "how long", ""),
    ("brightness", "", "mean of the whole frame", "0 to 255"),
)
#: A row of an event: eight digits, three, three and one, with what stands between them.
_EVENT_BYTES = 22
#: Rows are made of so many events at a time: as objects of Python they take ten times as much memory.
_PART = 1 << 16


def needs(one: StudySpan) -> int:
    """About how many bytes a span takes, at most."""
    return one.events * _EVENT_BYTES + (64 << 10)


def files(store: Store, spans: Sequence[StudySpan], progress: Progress) -> Iterator[ExportFile]:
    """The tables, events/0001.csv and so on, frames.csv. Raises DataInvalid."""
    yield from span_tables(spans, {"events/*.csv": _EVENTS, "frames.csv": _FRAMES})
    frames: list[tuple[object, ...]] = []
    for done, one in enumerate(spans):
        progress(done, len(spans), "")
        recorded = streams(store, one)
        yield f"events/{one.number:04d}.csv", table(names(_EVENTS), _rows(recorded.events))
        frames += [
            (one.number, frame.start_us, frame.exposure_us, f"{frame.image.mean():.1f}") for frame in recorded.frames
        ]
    progress(len(spans), len(spans), "")
    yield "frames.csv", table(names(_FRAMES), frames)


def _rows(events: NDArray[np.void]) -> Iterator[tuple[int, ...]]:
    return (row for begin in range(0, len(events), _PART) for row in events[begin : begin + _PART].tolist())
