"""Reads the spans that wearables exported for a study (``mcoe-client export --study --format aedat4``), once opened.

A folder that holds ``spans.csv`` and ``spans/0001.aedat4`` and so on, or one with such a folder for each wearer. What
the columns mean is in ``codebook.csv`` beside them. A span becomes the pictures that its wearer was shown: the same
square of the sensor, upright and as a right eye (`mcoe_model.data.geometry`), in the same windows
(`mcoe_model.data.events`); the first frame only opens the first window. What the wearer called `other`, and recordings
whose frames and events are not of the same time, are skipped and listed.

Recordings are decoded in processes of their own, since a damaged one may end its process.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from client import replay
from mcoe_model.data.events import EVENT, Frame, Pair, Pairing
from mcoe_model.data.geometry import PICTURE_SIZE, Geometry
from mcoe_model.data.manifest import Opener, Row
from mcoe_model.data.reader import ClipRecord, DataIndex, RawEvents, RecordedClip, Skipped, Unusable, with_takes
from mcoe_model.errors import DataInvalid, DataMissing, SettingsError
from mcoe_model.names import EMOTIONS

#: The table of an export's spans.
SPANS = "spans.csv"
_NEEDED = ("span", "wearer", "session", "day", "starts", "label", "flaw", "eye", "x", "y", "side", "rotation")
_GEOMETRY = ("eye", "x", "y", "side", "rotation")


class SpansReader:
    """Exported spans as a data set (`mcoe_model.data.reader.DataReader`): a wearer is a subject, a span is a clip."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spans: dict[str, tuple[Path, Row]] = {}

    @property
    def place(self) -> str:
        return str(self._root)

    def index(self) -> DataIndex:
        tables = [self._root / SPANS] if (self._root / SPANS).is_file() else sorted(self._root.glob(f"*/{SPANS}"))
        if not tables:
            raise DataMissing(f"there is no {SPANS} in {self._root}, nor in a folder of it")
        fingerprint = hashlib.sha256()
        records: list[tuple[str, str, float, ClipRecord]] = []
        skipped: list[Skipped] = []
        for table in tables:
            fingerprint.update(table.read_bytes())
            for row in _rows(table):
                try:
                    session = f"{int(row['day']):04d}-{row['session']}"
                    name = f"{row['wearer']}-{row['session']}-{int(row['span']):04d}"
                    path, starts = table.parent / "spans" / f"{int(row['span']):04d}.aedat4", float(row["starts"])
                except ValueError as fault:
                    raise DataInvalid(f"{table} is not a table of spans: {fault}") from fault
                if why := _flaw(row, path):
                    skipped.append(Skipped(name, why))
                    continue
                status = path.stat()
                fingerprint.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
                self._spans[name] = path, row
                record = ClipRecord(name, row["wearer"], session, "normal", row["label"], "training", 0)
                records.append((record.subject, session, starts, record))
        records.sort(key=lambda found: (found[:3], found[3].name))
        return DataIndex(with_takes(found[3] for found in records), tuple(skipped), fingerprint.hexdigest())

    def clip(self, record: ClipRecord) -> RecordedClip:
        return open_aedat4(*self._spans[record.name])


def open_aedat4(path: Path, row: Row) -> RecordedClip:
    """The windows of a recording. ``row`` may say which square of the sensor the eye is in, as an export's table does:
    ``eye``, ``x``, ``y``, ``side`` and ``rotation``.

    Raises Unusable for one that is damaged or holds no window, MissingExtra without what decodes AEDAT4.
    """
    geometry = _geometry(row)
    try:
        events, frames, pairs = asyncio.run(_replayed(path.read_bytes(), geometry))
    except DataInvalid as fault:
        raise Unusable(f"{path.name} cannot be read; it is damaged") from fault
    if not pairs:
        raise Unusable(f"{path.name} holds no window: two frames at least, with the camera running between them")
    if pairs[-1].number - pairs[0].number != len(pairs) - 1:
        raise Unusable(f"{path.name} has no frames for a while; cut it there")
    edges = np.array([min(frame.end_us for frame in frames), *(pair.end_us for pair in pairs)], np.int64)  # (n + 1,)
    return RecordedClip([pair.frame for pair in pairs], RawEvents(placed(events, geometry), edges))


OPENERS: Mapping[str, Opener] = {".aedat4": open_aedat4}


def placed(events: NDArray[np.void], geometry: Geometry) -> NDArray[np.void]:
    """The events (m,) on the sensor that lie in the picture, with x and y those of their cell there."""
    cells = geometry.cells[events["y"], events["x"]]  # (m,)
    inside = cells >= 0
    kept: NDArray[np.void] = events[inside]
    kept["y"], kept["x"] = np.divmod(cells[inside], PICTURE_SIZE)
    return kept


async def _replayed(recording: bytes, geometry: Geometry) -> tuple[NDArray[np.void], list[Frame], list[Pair]]:
    """Every event and frame of a recording, and the pairs that live recognition makes of them."""
    pairing, pairs = Pairing(geometry), list[Pair]()
    events, frames, ends_us = [np.empty(0, EVENT)], list[Frame](), -1
    async for piece in replay.streams([recording]):
        for frame in piece.frames:
            pairs += pairing.add_frame(frame)
            ends_us = max(ends_us, frame.end_us)
        pairs += pairing.add_events(piece.events)
        if len(piece.events):
            ends_us = max(ends_us, int(piece.events["timestamp"][-1]))
        frames += piece.frames
        events.append(piece.events)
    return np.concatenate(events), frames, pairs + pairing.reach(ends_us)


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(table.read_text("utf-8-sig")), strict=True)
        lacking = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        return [{name: row[name] or "" for name in _NEEDED} for row in reader]
    except (UnicodeDecodeError, csv.Error, ValueError) as fault:
        raise DataInvalid(f"{table} is not a table of spans: {fault}") from fault


def _flaw(row: Row, path: Path) -> str:
    """Why a span is not used; empty where it is."""
    if row["label"] not in EMOTIONS:
        return f"was called {row['label']!r}, which is none of the seven emotions"
    if row["flaw"]:
        return f"its recording is doubtful: {row['flaw']}"
    return "" if path.is_file() else f"there is no {path}; export with --format aedat4"


def _geometry(row: Row) -> Geometry:
    """The square of the sensor that a row names; the default one where it names none."""
    given = {name: row[name] for name in _GEOMETRY if row.get(name)}
    try:
        values: dict[str, Any] = {name: int(given[name]) for name in ("x", "y", "side") if name in given}
        if "rotation" in given:
            values["rotation"] = float(given["rotation"])
        if "eye" in given:
            values["eye"] = cast(Any, given["eye"])
        return Geometry(**values)
    except (ValueError, SettingsError) as fault:
        raise Unusable(f"its place on the sensor cannot be understood: {fault}") from fault
