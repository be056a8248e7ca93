"""What a data set is to everything after it: clips of people with labels, and what was recorded of each.

A reader lists its clips without opening them (`index`) and opens one of them at a time (`clip`). What it hands over is
either pictures of both modalities, as SEE has them, or frames with the events themselves; from there on there is one
way, through a representation (`mcoe_model.data.representations`) and the cache (`mcoe_model.data.cache`), whichever
reader it was. NumPy only.

Letters: n windows (pictures of each modality), m events, H and W height and width [pixels].
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT
from mcoe_model.errors import DataInvalid
from mcoe_model.names import EMOTIONS, LIGHTINGS

#: Clips and subjects name files, so their names have no slash, no control character, and begin with neither . nor -.
NAME = re.compile(r"(?![.-])[^/\\\x00-\x1f\x7f]{1,200}")
SPLITS = ("training", "testing")


@dataclass(frozen=True)
class ClipRecord:
    """One clip: one expression of one subject.

    - ``session``: which sitting it is of; empty where the data set does not say.
    - ``n_frames``: windows of it; 0 where that is not known before it is opened.
    - ``take``: numbers what a subject showed; clips of one emotion and take, under several lightings, are one
      performance. SEE's own number, else counted within a session and an emotion.
    """

    name: str
    subject: str
    session: str
    lighting: str  # one of names.LIGHTINGS
    emotion: str  # one of names.EMOTIONS
    split: str  # one of SPLITS, as published
    n_frames: int
    take: int = 0

    @property
    def class_index(self) -> int:
        """The place of its emotion in names.EMOTIONS."""
        return EMOTIONS.index(self.emotion)

    def faults(self) -> list[str]:
        """What is wrong with it."""
        found = []
        for what, name in (("clip", self.name), ("subject", self.subject)):
            if not NAME.fullmatch(name):
                found.append(f"{what} {name!r} cannot name a file")
        if self.emotion not in EMOTIONS:
            found.append(f"unknown emotion {self.emotion!r} (known: {', '.join(EMOTIONS)})")
        if self.lighting not in LIGHTINGS:
            found.append(f"unknown lighting {self.lighting!r} (known: {', '.join(LIGHTINGS)})")
        if self.split not in SPLITS:
            found.append(f"split {self.split!r} is neither training nor testing")
        return found


class Skipped(NamedTuple):
    """A clip that cannot be used, and why."""

    name: str
    reason: str


class DataIndex(NamedTuple):
    """What a data set holds. ``fingerprint`` changes whenever any of its files does."""

    records: tuple[ClipRecord, ...]
    skipped: tuple[Skipped, ...]
    fingerprint: str


class Unusable(Exception):
    """Why one clip is skipped; the others are used."""


@dataclass(frozen=True, eq=False)
class RawEvents:
    """The events of a clip, on the pixels of its frames.

    - ``events``: (m,) of dtype EVENT in the order of their times, 0 <= x < W, 0 <= y < H; polarity 1 is ON, else OFF.
    - ``edges_us``: (n + 1,) ascending; window i holds the events of (edges_us[i], edges_us[i + 1]].
    """

    events: NDArray[np.void]
    edges_us: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RecordedClip:
    """What was recorded: n grey frames (H, W), and n event pictures (H, W) or the events themselves."""

    frames: Sequence[NDArray[np.uint8]]
    events: Sequence[NDArray[np.uint8]] | RawEvents


class DataReader(Protocol):
    """A data set."""

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        ...

    def index(self) -> DataIndex:
        """The clips that look usable, always in the same order, and those that do not. Opens none of them.

        Raises DataMissing when there is no such data set, DataInvalid when it cannot be understood.
        """
        ...

    def clip(self, record: ClipRecord) -> RecordedClip:
        """What was recorded of a clip of the index. Called by several threads.

        Raises Unusable for one that is torn, DataInvalid for a disk that does not answer.
        """
        ...


def checked(index: DataIndex, place: str) -> DataIndex:
    """The index. Raises DataInvalid unless every record is sound, its name is unique, and there is one at least."""
    faults = [Skipped(record.name, fault) for record in index.records for fault in record.faults()]
    names: set[str] = set()
    for record in index.records:
        if record.name in names:
            faults.append(Skipped(record.name, "is there twice"))
        names.add(record.name)
    if faults:
        raise DataInvalid(f"{place}: {len(faults)} faults in {len(index.records)} clips: {first_few(faults)}")
    if not index.records:
        raise nothing_usable(place, index.skipped)
    return index


def with_takes(records: Iterable[ClipRecord]) -> tuple[ClipRecord, ...]:
    """The records in their order, each with its number among those of its subject, session and emotion, from 0."""
    counted: Counter[tuple[str, str, str]] = Counter()
    found = []
    for record in records:
        kind = (record.subject, record.session, record.emotion)
        found.append(replace(record, take=counted[kind]))
        counted[kind] += 1
    return tuple(found)


def check_clip(clip: RecordedClip) -> None:
    """Raises Unusable unless a clip's parts fit together."""
    if not len(clip.frames):
        raise Unusable("no picture is in it")
    pictures = [*clip.frames, *([] if isinstance(clip.events, RawEvents) else clip.events)]
    odd = {f"{picture.shape} {picture.dtype}" for picture in pictures if picture.dtype != np.uint8 or picture.ndim != 2}
    if odd:
        raise Unusable(f"its pictures are {', '.join(sorted(odd))}; they must be grey, (H, W) uint8")
    shapes = {frame.shape for frame in clip.frames}
    if isinstance(clip.events, RawEvents):
        _check_events(clip.events, len(clip.frames), shapes)
    elif len(clip.events) != len(clip.frames):
        raise Unusable(f"{len(clip.frames)} frames, but {len(clip.events)} event pictures")


def _check_events(raw: RawEvents, windows: int, shapes: set[tuple[int, ...]]) -> None:
    if len(shapes) != 1:
        raise Unusable("its frames differ in size, and its events lie on their pixels")
    (height, width), events = next(iter(shapes)), raw.events
    if events.dtype != EVENT:
        raise Unusable(f"its events are {events.dtype}, not {EVENT}")
    if len(raw.edges_us) != windows + 1 or not (np.diff(raw.edges_us) > 0).all():
        raise Unusable(f"{windows} windows need {windows + 1} ascending edges, there are {len(raw.edges_us)}")
    if not len(events):
        return
    if not (np.diff(events["timestamp"]) >= 0).all():
        raise Unusable("its events are not in the order of their times")
    low, high = min(events["x"].min(), events["y"].min()), (int(events["x"].max()), int(events["y"].max()))
    if low < 0 or high[0] >= width or high[1] >= height:
        raise Unusable(f"events reach to {high}, beyond the frames of {width} x {height} pixels")


def nothing_usable(place: object, skipped: Iterable[Skipped]) -> DataInvalid:
    """The error for a data set of which every clip was skipped, with the first few reasons."""
    skipped = list(skipped)
    return DataInvalid(f"{place} holds no usable sequence: {len(skipped)} skipped: {first_few(skipped)}")


def first_few(faults: Sequence[Skipped], limit: int = 3) -> str:
    """Some of them, for a line."""
    shown = "; ".join(f"{fault.name}: {fault.reason}" for fault in faults[:limit])
    return f"{shown}; ..." if len(faults) > limit else shown
