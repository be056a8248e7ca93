"""Spans as AEDAT4 files, one each, cut to the span: events, frames, motion, signals; times count from its start."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.cameras.events import NumpyEvents
from client.cameras.source import Portion
from client.export.everything import ExportFile
from client.export.replayed import streams
from client.export.study_spans import StudySpan
from client.export.tables import span_tables
from client.recorder import Recorder
from client.replay import Streams
from client.segment_files import PlainSegment
from client.sessions import Store
from client.sessions.values import LONGEST_US
from mcoe_model.errors import DataInvalid
from mcoe_model.progress import Progress

#: dv-processing writes files only; here they never touch a disk.
_MEMORY = Path("/dev/shm")
#: Events of one packet, about as many as a camera's.
_PACKET = 20_000


def needs(one: StudySpan) -> int:
    """About how many bytes a span takes."""
    return one.sealed_bytes + (1 << 20)


def files(store: Store, spans: Sequence[StudySpan], progress: Progress) -> Iterator[ExportFile]:
    """spans/0001.aedat4 and so on, and the tables. Raises DataInvalid."""
    yield from span_tables(spans, {})
    for done, one in enumerate(spans):
        progress(done, len(spans), "")
        yield f"spans/{one.number:04d}.aedat4", _written(streams(store, one), one.number)
    progress(len(spans), len(spans), "")


def _written(recorded: Streams, number: int) -> bytes:
    """One file with everything in it, by the recorder, which names no serial."""
    with tempfile.TemporaryDirectory(prefix="mcoe-export-", dir=_MEMORY) as folder:
        made: list[PlainSegment] = []
        recorder = Recorder(Path(folder), f"{number:04d}", made.append, segment_us=2 * LONGEST_US)
        for begin in range(0, len(recorded.events), _PACKET):
            recorder.add(Portion(NumpyEvents(recorded.events[begin : begin + _PACKET]), (), None, None))
        for frame in recorded.frames:
            recorder.add(Portion(None, (frame,), None, None))
        for name in ("imu", "triggers"):
            if len(array := getattr(recorded, name)):
                recorder.add(Portion(None, (), **{"imu": None, "triggers": None} | {name: array}))
        recorder.cut(last=True)
        if len(made) != 1 or recorder.refused:
            raise DataInvalid(f"span {number} of the export holds nothing that can be written; discard it")
        return made[0].path.read_bytes()
