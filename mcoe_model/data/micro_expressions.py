"""Reads folders of micro-expressions (SMIC, SAMM, CASME II, or all of them as MEGC2019's composite).

There is one table, ``<root>/labels.csv``, with a header and a row for each clip::

    database,subject,clip,emotion,onset,offset
    casme2,sub01,casme2/sub01/EP02_01f,happiness,46,86
    smic,s01,smic/s01/positive/s01_po_01,positive,,

``clip`` is a folder of pictures, relative to the root (.jpg, .jpeg, .png, .bmp, .tif, .tiff), in the order of the last
number in their names, or a video (`mcoe_model.data.video_files`), whose pictures count from 1. ``onset`` and
``offset``, which may be absent or empty, are the numbers of the first and the last picture that count. ``database`` may
be absent; a subject is one of its database. Further columns are not read.

The three classes are those of the composite database of See et al. 2019, "MEGC 2019 - The Second Facial
Micro-Expressions Grand Challenge", FG 2019: negative is anger, contempt, disgust, fear, repression and sadness.
Any other emotion, such as CASME II's "others", is in none of them. A row that cannot be used is listed with its reason;
a table that cannot be understood is an error.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.sampling import EvenlySpaced
from mcoe_model.data.video_files import VIDEOS, count_pictures, read_pictures
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.progress import Progress, silent

#: The classes, in the order used by every array and table.
CLASSES = ("negative", "positive", "surprise")

_CLASS_OF = {
    **dict.fromkeys(("negative", "anger", "contempt", "disgust", "fear", "repression", "sadness"), "negative"),
    **dict.fromkeys(("positive", "happiness"), "positive"),
    "surprise": "surprise",
}
_NEEDED, _OPTIONAL = ("subject", "clip", "emotion"), ("database", "onset", "offset")
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


class MicroClip(NamedTuple):
    """One usable clip.

    ``pictures``, from onset to offset, are files relative to the root, or the numbers of pictures in a video.
    """

    line: int  # in the table
    name: str  # its folder, or its video
    database: str
    subject: str  # with its database before it, where the table names one
    label: int  # into CLASSES
    pictures: tuple[str, ...] | tuple[int, ...]


class Unusable(NamedTuple):
    """A row of the table that cannot be used, and why."""

    line: int  # in the table
    name: str
    reason: str


@dataclass(frozen=True)
class MicroIndex:
    """What a data folder holds, in the table's order."""

    clips: tuple[MicroClip, ...]
    unusable: tuple[Unusable, ...]


def read_micro_expressions(root: Path, progress: Progress = silent) -> MicroIndex:
    """Read the table and list the pictures of every clip; no picture is kept. A video takes as long as decoding it.

    Raises DataMissing when the root or its table is absent, DataInvalid when the table cannot be understood,
    MissingExtra when a clip is a video and PyAV is absent.
    """
    path = root / "labels.csv"
    if not path.is_file():
        raise DataMissing(f"no table {path}; it has a row for each clip: database,subject,clip,emotion,onset,offset")
    clips: list[MicroClip] = []
    unusable: list[Unusable] = []
    lines: dict[str, int] = {}
    rows = _rows(path)
    for done, (line, row) in enumerate(rows):
        progress(done, len(rows), "clips listed")
        name = row["clip"]
        try:
            if name in lines:
                raise _Fault(f"is in line {lines[name]} already")
            lines[name] = line
            clips.append(_clip(root, line, row))
        except _Fault as fault:
            unusable.append(Unusable(line, name, str(fault)))
    progress(len(rows), len(rows), "clips listed")
    return MicroIndex(tuple(clips), tuple(unusable))


def decode(root: Path, clip: MicroClip, *, frames: int, size: int) -> NDArray[np.uint8] | str:
    """``frames`` evenly spaced pictures of a clip, squeezed to squares: (frames, size, size, 3); or why it is unusable.

    As the released code of CMFNet makes its input, from the whole picture and each new pixel the mean of those it
    covers, but with red first: that code swaps red and blue by mistake.
    """
    chosen = [clip.pictures[index] for index in EvenlySpaced(frames).law(len(clip.pictures)).windows[0]]  # (frames,)
    try:
        pictures = list(_opened(root, clip, chosen))
    except _Fault as fault:
        return str(fault)
    return np.stack([np.asarray(one.resize((size, size), Image.Resampling.BOX)) for one in pictures])


def _opened(root: Path, clip: MicroClip, chosen: Sequence[str | int]) -> Iterator[Image.Image]:
    """The chosen pictures as RGB, in order; one may be chosen again. Raises _Fault."""
    numbers = {one for one in chosen if isinstance(one, int)}
    try:
        in_video = read_pictures(root / clip.name, numbers) if numbers else {}
    except ValueError as fault:
        raise _Fault(f"{clip.name} {fault}") from fault
    for one in chosen:
        if isinstance(one, int):
            yield in_video[one]
            continue
        try:
            with Image.open(root / one) as picture:
                yield picture.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:  # Pillow's for broken files
            raise _Fault(f"{one} is torn or no picture") from fault


class _Fault(Exception):
    """Why one row cannot be used."""


def _rows(path: Path) -> list[tuple[int, Mapping[str, str]]]:
    """The table's rows with their lines, every wanted column a stripped text. Raises DataInvalid."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            missing = [name for name in _NEEDED if name not in columns]
            if missing:
                raise DataInvalid(f"{path} has no column {', '.join(missing)}; the first line must name the columns")
            absent = dict.fromkeys(_OPTIONAL, "")
            wanted = {name: columns[name] for name in (*_NEEDED, *_OPTIONAL) if name in columns}
            return [
                (reader.line_num, absent | {name: (row[column] or "").strip() for name, column in wanted.items()})
                for row in reader
            ]
    except (csv.Error, UnicodeDecodeError) as fault:
        raise DataInvalid(f"{path} is no table of comma-separated values in UTF-8 ({fault})") from fault


def _clip(root: Path, line: int, row: Mapping[str, str]) -> MicroClip:
    """The clip of a row. Raises _Fault."""
    name, emotion = row["clip"], row["emotion"].lower()
    if not row["subject"]:
        raise _Fault("names no subject")
    if emotion not in _CLASS_OF:
        raise _Fault(f"{row['emotion'] or 'no emotion'} is in none of the classes {', '.join(CLASSES)}")
    if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise _Fault(f"{name or 'no clip'} is no place below the root")
    onset, offset = _bound(row, "onset"), _bound(row, "offset")
    found = _in_video(root / name) if _is_video(root / name) else _in_folder(root / name, name)
    first, last = (min(found) if onset is None else onset), (max(found) if offset is None else offset)
    for what, bound in (("onset", first), ("offset", last)):
        if bound not in found:
            raise _Fault(f"there is no picture of the {what}, {bound}; there are {min(found)} to {max(found)}")
    if first > last:
        raise _Fault(f"the onset {first} comes after the offset {last}")
    pictures: tuple[Any, ...] = tuple(found[number] for number in sorted(found) if first <= number <= last)
    database = row["database"].lower()
    subject = f"{database}/{row['subject']}" if database else row["subject"]
    return MicroClip(line, name, database, subject, CLASSES.index(_CLASS_OF[emotion]), pictures)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS and path.is_file()


def _in_video(path: Path) -> dict[int, int]:
    """The pictures of a video by their number. Raises _Fault, MissingExtra."""
    try:
        return {number: number for number in range(1, count_pictures(path) + 1)}
    except ValueError as fault:
        raise _Fault(str(fault)) from fault


def _in_folder(folder: Path, name: str) -> dict[int, str]:
    """The pictures of a folder, below the root, by the last number in their names. Raises _Fault."""
    if not folder.is_dir():
        raise _Fault("there is no such folder or video")
    found: dict[int, str] = {}
    for file in sorted(folder.iterdir()):
        number = _LAST_NUMBER.search(file.stem)
        if number and file.suffix.lower() in _PICTURES:
            if int(number[1]) in found:
                raise _Fault(f"two pictures have the number {int(number[1])}")
            found[int(number[1])] = f"{name}/{file.name}"
    if not found:
        raise _Fault("the folder holds no numbered picture")
    return found


def _bound(row: Mapping[str, str], name: str) -> int | None:
    text = row[name]
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise _Fault(f"{name} {text!r} is not the number of a picture")
    return int(text)
