"""A span's recording, decoded by a process of its own (`client.replay`), so that a damaged one ends only that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np

from client import replay
from client.cameras.source import IMU, TRIGGER
from client.export.study_spans import StudySpan, require_agreement
from client.replay import Streams
from client.sessions import Store
from mcoe_model.data.events import EVENT, Frame, Pair


def pictures(store: Store, one: StudySpan) -> list[Pair]:
    """The pairs of pictures whose windows end in the span. Raises as `streams`."""
    bounds = one.span.start_us, one.span.end_us
    return asyncio.run(replay.pairs(_segments(store, one), one.recording.geometry, *bounds))


def streams(store: Store, one: StudySpan) -> Streams:
    """What was recorded in the span; its times count from the span's start.

    Raises ConsentMissing, DataInvalid, DataMissing.
    """
    return asyncio.run(_streams(store, one))


async def _streams(store: Store, one: StudySpan) -> Streams:
    pieces = [piece async for piece in replay.streams(_segments(store, one), one.span.start_us, one.span.end_us)]
    begin = one.span.start_us
    events, imu, triggers = (
        np.concatenate([np.empty(0, dtype), *(getattr(piece, name) for piece in pieces)])
        for name, dtype in (("events", EVENT), ("imu", IMU), ("triggers", TRIGGER))
    )
    for array in (events, imu, triggers):
        array["timestamp"] -= begin
    frames = (frame for piece in pieces for frame in piece.frames)
    counted = tuple(Frame(frame.start_us - begin, frame.exposure_us, frame.image) for frame in frames)
    return Streams(events, counted, imu, triggers)


def _segments(store: Store, one: StudySpan) -> Iterator[bytes]:
    require_agreement(store)  # it may have been withdrawn since the first span
    return (b"".join(store.open_segment(segment)) for segment in one.segments)
