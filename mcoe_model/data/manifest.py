"""Reads any data set that a table describes: one row for each clip, with the files that it is in.

    clip,subject,session,label,frames,events,lighting,split
    c001,p01,1,happiness,frames/c001,events/c001,,
    c002,p01,1,fear,frames/c002,raw/c002.npz,low-light,training

CSV (RFC 4180) in UTF-8; ``lighting`` and ``split`` may be left out, further columns are not read. Paths are relative to
the table. ``label`` and ``lighting`` have SEE's words; no lighting counts as normal, no split as training.

- ``frames`` is a folder of pictures (.jpg, .jpeg, .png) in the order of their names.
- ``events`` is a folder of as many event pictures, which must look as SEE's; or a file ``.npz`` of the arrays
  ``timestamp`` [us], ``x``, ``y`` [pixels of the frames] and ``polarity`` (1: ON, else OFF), each (m,) and in the order
  of their times, with ``edges`` (n + 1,) [us]: frame i goes with the events of (edges[i], edges[i + 1]]; or a file with
  an ending that the caller has an opener for, which holds the frames too: then ``frames`` is empty.

A row that cannot be understood is an error, with all others: it may be a class or a person that nobody expects to be
missing. A clip whose files turn out to be torn is skipped and listed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT
from mcoe_model.data.picture_files import read_grey
from mcoe_model.data.reader import (
    ClipRecord,
    DataIndex,
    RawEvents,
    RecordedClip,
    Skipped,
    Unusable,
    first_few,
    with_takes,
)
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.names import parse_emotion, parse_lighting

REQUIRED = ("clip", "subject", "session", "label", "frames", "events")
OPTIONAL = ("lighting", "split")
PICTURES = (".jpg", ".jpeg", ".png")
#: NumPy reads what an array is like with `ast`, which before Python 3.11.8 fails now and then in threads
#: (https://github.com/python/cpython/issues/106905).
_ONE_AT_A_TIME = threading.Lock()
#: Faults of a table that its error shows.
_SHOWN = 5

Row = Mapping[str, str]
#: Opens a file that holds a whole clip; the row tells more of it. Raises Unusable, DataInvalid.
Opener = Callable[[Path, Row], RecordedClip]


@dataclass(frozen=True)
class _Sources:
    """Where a clip's files are; without frames they are in the events' file."""

    row: Row
    frames: Path | None
    events: Path


class ManifestReader:
    """The data set of a table (`mcoe_model.data.reader.DataReader`).

    ``openers`` open whole clips by the ending of their file, such as ``.aedat4``.
    """

    def __init__(self, table: Path, openers: Mapping[str, Opener] | None = None) -> None:
        self._table = table
        self._openers = openers or {}
        self._sources: dict[str, _Sources] = {}

    @property
    def place(self) -> str:
        return str(self._table)

    def index(self) -> DataIndex:
        if not self._table.is_file():
            raise DataMissing(f"there is no table {self._table}; name a CSV file with a row for each clip")
        content = self._table.read_bytes()
        fingerprint = hashlib.sha256(content)
        sources: dict[str, _Sources] = {}
        records: list[ClipRecord] = []
        faults: list[Skipped] = []
        rows = 0
        for line, row in self._rows(content):
            rows += 1
            try:
                files = self._found(row)
                record = _record(row, files, fingerprint)
                if record.name in sources:
                    raise ValueError(f"clip {record.name!r} is there twice")
                sources[record.name] = files
                records.append(record)
            except ValueError as fault:
                faults.append(Skipped(f"line {line}", str(fault)))
        if faults:
            raise DataInvalid(
                f"{self._table}: {len(faults)} of {rows} rows cannot be used: {first_few(faults, _SHOWN)}; "
                "mend or remove them"
            )
        self._sources = sources
        records.sort(key=lambda record: (record.subject, record.session, record.name))
        return DataIndex(with_takes(records), (), fingerprint.hexdigest())

    def clip(self, record: ClipRecord) -> RecordedClip:
        files = self._sources[record.name]
        if files.frames is None:
            return self._openers[files.events.suffix](files.events, files.row)
        frames = [read_grey(self._table.parent, str(path)) for path in _pictures(files.frames)]
        if files.events.is_dir():
            return RecordedClip(frames, [read_grey(self._table.parent, str(path)) for path in _pictures(files.events)])
        return RecordedClip(frames, read_events(files.events))

    def _rows(self, content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
        """Every row with its line, its values stripped. Raises DataInvalid for what is no such table."""
        try:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
            lacking = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"it lacks the columns {', '.join(lacking)}")
            for row in reader:
                yield reader.line_num, {str(key): value.strip() for key, value in row.items() if isinstance(value, str)}
        except (UnicodeDecodeError, csv.Error, ValueError) as fault:
            raise DataInvalid(f"{self._table} is not a table of clips ({fault}); see docs/add_your_own.md") from fault

    def _found(self, row: Row) -> _Sources:
        """The files of a row. Raises ValueError for what is not there or cannot be read together."""
        lacking = [name for name in ("clip", "subject", "label", "events") if not row.get(name)]
        if lacking:
            raise ValueError(f"no {' and no '.join(lacking)}")
        base = self._table.parent.absolute()
        events = base / row["events"]
        if not events.exists():
            raise ValueError(f"there is no {row['events']}")
        whole = events.is_file() and events.suffix in self._openers
        if not (whole or events.is_dir() or events.suffix == ".npz"):
            endings = ", ".join([".npz", *self._openers])
            raise ValueError(f"events {row['events']!r} is neither a folder of pictures nor a file ending in {endings}")
        if whole and row.get("frames"):
            raise ValueError(f"{row['events']} holds the frames too: leave frames empty")
        if not whole and not (row.get("frames") and (base / row["frames"]).is_dir()):
            raise ValueError(f"there is no folder of frames {row.get('frames')!r}")
        return _Sources(row, None if whole else base / row["frames"], events)


def _record(row: Row, files: _Sources, fingerprint: hashlib._Hash) -> ClipRecord:
    """A row's record; its files' names, sizes and times go into the fingerprint. Raises ValueError."""
    pictures = [] if files.frames is None else _pictures(files.frames)
    if files.frames is not None and not pictures:
        raise ValueError(f"no pictures in {row['frames']}")
    for path in (*pictures, *(_pictures(files.events) if files.events.is_dir() else [files.events])):
        status = path.stat()
        fingerprint.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    emotion, lighting = parse_emotion(row["label"]), parse_lighting(row.get("lighting") or "normal")
    session, split = row.get("session", ""), row.get("split") or "training"
    record = ClipRecord(row["clip"], row["subject"], session, lighting, emotion, split, len(pictures))
    if found := record.faults():
        raise ValueError("; ".join(found))
    return record


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz`` file, by name; from any thread. Raises OSError, ValueError, EOFError, BadZipFile."""
    with _ONE_AT_A_TIME, np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def read_events(path: Path) -> RawEvents:
    """The events of an ``.npz`` file; see the module. Raises Unusable for one that is torn or holds something else."""
    try:
        stored = read_arrays(path)
        columns = {name: stored[name] for name in ("timestamp", "x", "y", "polarity", "edges")}
        sizes = {columns[name].shape for name in ("timestamp", "x", "y", "polarity")}
        if len(sizes) != 1 or columns["timestamp"].ndim != 1 or columns["edges"].ndim != 1:
            raise ValueError("its arrays differ in length")
        events = np.empty(len(columns["timestamp"]), EVENT)
        for name in ("timestamp", "x", "y"):
            events[name] = columns[name]
            if not np.array_equal(events[name], columns[name]):
                raise ValueError(f"{name} holds numbers that are no whole pixels or microseconds")
        events["polarity"] = columns["polarity"] > 0
        edges = np.asarray(columns["edges"], np.int64)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as fault:
        raise Unusable(f"{path.name} holds no events that can be read ({fault})") from fault
    return RawEvents(events, edges)


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
