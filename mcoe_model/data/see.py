"""Reads the SEE data set: which sequences there are, who shows what under which light, and where their pictures lie.

SEE (Zhang et al. 2023, https://arxiv.org/abs/2310.04043) is laid out as
``<root>/<event|frame>/<emotion>/<sequence name>/%05d.jpg`` beside ``<root>/emotion.json``:
``{"labels": [7], "database": {name: {"subset": "training"|"testing", "annotations": {"label", "segment"}}}}``
where a segment is [start, end), counted from zero.

Differs from the published loader: that one drops what it cannot find without a word. Here a sequence that cannot be
used is skipped and listed with its reason, and a name that cannot be understood is an error. Pictures outside the
segment are no fault and are never read. The class of an emotion is its place in ``names.EMOTIONS``; the order of the
file's own labels is kept in ``SeeIndex.labels`` for checkpoints that were trained with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mcoe_model.data.picture_files import read_grey
from mcoe_model.data.reader import (
    ClipRecord,
    DataIndex,
    RecordedClip,
    Skipped,
    Unusable,
    first_few,
    nothing_usable,
)
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.names import EMOTIONS, parse_emotion, parse_lighting

MODALITIES = ("frame", "event")
_FIELDS = ("number", "subject", "sex", "age", "degree", "lighting", "emotion", "length", "take")
_PICTURE = re.compile(r"(\d{5})\.jpg")


class SequenceName(NamedTuple):
    """What a sequence's name says, e.g. ``1_001_man_24_Master_normal_angry_45_take000``."""

    number: int
    subject: str
    sex: str
    age: int
    degree: str
    lighting: str  # one of names.LIGHTINGS
    emotion: str  # one of names.EMOTIONS
    length: int  # pictures
    take: int


@dataclass(frozen=True)
class SequenceRecord:
    """One usable sequence: one expression of one subject. Its pictures are start..end-1 of both folders."""

    name: str
    number: int
    subject: str
    sex: str
    age: int
    degree: str
    lighting: str
    emotion: str
    length: int  # pictures, as the name says
    take: int
    split: str  # "training" or "testing", as published
    start: int
    end: int  # exclusive
    frame_folder: str  # relative to the root
    event_folder: str

    @property
    def n_frames(self) -> int:
        """Pictures of each modality in the annotated segment."""
        return self.end - self.start

    @property
    def class_index(self) -> int:
        """The place of its emotion in names.EMOTIONS."""
        return EMOTIONS.index(self.emotion)

    @property
    def clip(self) -> ClipRecord:
        """What everything after the reader knows of it."""
        about = (self.name, self.subject, "", self.lighting, self.emotion, self.split)
        return ClipRecord(*about, n_frames=self.n_frames, take=self.take)

    def picture(self, modality: str, index: int) -> str:
        """The path of picture ``index`` (start <= index < end), relative to the root."""
        return f"{self.frame_folder if modality == 'frame' else self.event_folder}/{index:05d}.jpg"


class SeeIndex(NamedTuple):
    """What a data folder holds. ``fingerprint`` changes with the annotation and with any picture's size or time."""

    records: tuple[SequenceRecord, ...]  # by sequence number
    skipped: tuple[Skipped, ...]
    labels: tuple[str, ...]  # the order of emotion.json
    fingerprint: str


class SeeReader:
    """SEE as a data set to read (`mcoe_model.data.reader.DataReader`).

    SEE does not tell sittings apart; where ``sessions.json`` lies beside the annotation, as with the synthetic
    `wearable` design, it does: ``{name: {"session": number, ...}}``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records: dict[str, SequenceRecord] = {}

    @property
    def place(self) -> str:
        return str(self._root)

    def index(self) -> DataIndex:
        found = read_see(self._root)
        self._records = {record.name: record for record in found.records}
        sessions, fingerprint = self._sessions(found.fingerprint)
        records = (replace(record.clip, session=sessions.get(record.name, "")) for record in found.records)
        return DataIndex(tuple(records), found.skipped, fingerprint)

    def clip(self, record: ClipRecord) -> RecordedClip:
        sequence = self._records[record.name]
        frames, events = (
            [read_grey(self._root, sequence.picture(modality, i)) for i in range(sequence.start, sequence.end)]
            for modality in MODALITIES
        )
        return RecordedClip(frames, events)

    def _sessions(self, fingerprint: str) -> tuple[dict[str, str], str]:
        """The session of every clip that has one, and the fingerprint with them. Raises DataInvalid."""
        path = self._root / "sessions.json"
        if not path.is_file():
            return {}, fingerprint
        content = path.read_bytes()
        try:
            sessions = {name: str(entry["session"]) for name, entry in json.loads(content).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise DataInvalid(f"{path} does not tell sessions ({type(fault).__name__}: {fault}); remove it") from fault
        return sessions, hashlib.sha256(fingerprint.encode() + content).hexdigest()


def parse_name(name: str) -> SequenceName:
    """The nine fields of a sequence's name. Raises ValueError saying what is wrong with it."""
    fields = name.split("_")
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{len(fields)} fields instead of {len(_FIELDS)}")
    number, subject, sex, age, degree, lighting, emotion, length, take = fields
    for field, text in (("number", number), ("age", age), ("length", length), ("take", take.removeprefix("take"))):
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{field} {text!r} is not a number")
    return SequenceName(
        int(number), subject, sex, int(age), degree,
        parse_lighting(lighting), parse_emotion(emotion), int(length), int(take.removeprefix("take")),
    )  # fmt: skip


def read_see(root: Path) -> SeeIndex:
    """Read the annotation and list the pictures of every sequence; no picture is opened.

    Raises DataMissing when the root, its annotation or a modality is absent, DataInvalid when the annotation or names
    in it cannot be understood or when no sequence is usable.
    """
    annotation = _read_annotation(root)
    labels, database = _checked(annotation, root)
    names = _parse_names(database, root)
    folders = {modality: _sequence_folders(root, modality) for modality in MODALITIES}

    fingerprint = hashlib.sha256(annotation)
    records: list[SequenceRecord] = []
    skipped: list[Skipped] = []
    for name in sorted(database, key=lambda name: (names[name].number, name)):
        pictures: dict[str, dict[int, int]] = {}
        try:
            for modality in MODALITIES:
                folder = folders[modality].get((_label(database[name]), name))
                if folder is None:
                    raise Unusable(f"no folder {modality}/{_label(database[name])}/{name}")
                pictures[modality] = _list_pictures(root, folder, fingerprint)
            records.append(_record(name, names[name], database[name], folders, pictures))
        except Unusable as fault:
            skipped.append(Skipped(name, str(fault)))
    found = {key[1]: folder for modality in MODALITIES for key, folder in folders[modality].items()}
    unnamed = sorted(found.keys() - database)
    skipped += [Skipped(name, f"{found[name]} is there but emotion.json does not name it") for name in unnamed]
    if not records:
        raise nothing_usable(root, skipped)
    return SeeIndex(tuple(records), tuple(skipped), labels, fingerprint.hexdigest())


def _read_annotation(root: Path) -> bytes:
    if not root.is_dir():
        raise DataMissing(f"no data folder {root}; name the folder that holds emotion.json, event/ and frame/")
    path = root / "emotion.json"
    if not path.is_file():
        raise DataMissing(f"no annotation {path}; it is a part of SEE and belongs beside event/ and frame/")
    return path.read_bytes()


def _checked(annotation: bytes, root: Path) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """The labels, canonical and in the file's order, and the database of an annotation."""
    path = root / "emotion.json"
    try:
        content = json.loads(annotation)
        labels = tuple(parse_emotion(label) for label in content["labels"])
        database = content["database"]
        for name, entry in database.items():
            if not isinstance(entry["annotations"]["label"], str):
                raise ValueError(f"the label of {name} is not a text")
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise DataInvalid(f"{path} is not an annotation of SEE: {type(fault).__name__}: {fault}") from fault
    if sorted(labels) != sorted(EMOTIONS):
        raise DataInvalid(f"{path}: labels are {', '.join(labels)}; they must be the seven {', '.join(EMOTIONS)}")
    return labels, database


def _parse_names(database: dict[str, dict[str, Any]], root: Path) -> dict[str, SequenceName]:
    """Every name and label understood; an unknown word may be a new class, so it is an error and never a skip."""
    names: dict[str, SequenceName] = {}
    faults: list[Skipped] = []
    for name, entry in database.items():
        try:
            parse_emotion(entry["annotations"]["label"])
            names[name] = parse_name(name)
        except ValueError as fault:
            faults.append(Skipped(name, str(fault)))
    if faults:
        path = root / "emotion.json"
        raise DataInvalid(f"{path}: {len(faults)} of {len(database)} sequences not understood: {first_few(faults)}")
    return names


def _label(entry: dict[str, Any]) -> str:
    return parse_emotion(entry["annotations"]["label"])


def _sequence_folders(root: Path, modality: str) -> dict[tuple[str, str], str]:
    """(emotion, sequence name) -> folder relative to the root. Emotion folders match in any case: SEE has neutraL."""
    if not (root / modality).is_dir():
        raise DataMissing(f"no folder {root / modality}; SEE has event/ and frame/ beside emotion.json")
    return {
        (emotion.name.lower(), sequence.name): f"{modality}/{emotion.name}/{sequence.name}"
        for emotion in sorted((root / modality).iterdir())
        if emotion.name.lower() in EMOTIONS and emotion.is_dir()
        for sequence in os.scandir(emotion)
        if sequence.is_dir()
    }


def _list_pictures(root: Path, folder: str, fingerprint: hashlib._Hash) -> dict[int, int]:
    """Picture index -> bytes; name, size and time of each go into the fingerprint."""
    pictures = {}
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        if match := _PICTURE.fullmatch(entry.name):
            status = entry.stat()
            pictures[int(match[1])] = status.st_size
            fingerprint.update(f"{folder}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return pictures


def _record(
    name: str,
    parsed: SequenceName,
    entry: dict[str, Any],
    folders: dict[str, dict[tuple[str, str], str]],
    pictures: dict[str, dict[int, int]],
) -> SequenceRecord:
    """The record of a sequence. Raises Unusable when its annotation and its pictures do not fit together."""
    emotion = _label(entry)
    if parsed.emotion != emotion:
        raise Unusable(f"labelled {emotion} but named {parsed.emotion}")
    if entry.get("subset") not in ("training", "testing"):
        raise Unusable(f"subset {entry.get('subset')!r} is neither training nor testing")
    start, end = _segment(entry)
    if len(pictures["frame"]) != len(pictures["event"]):
        raise Unusable(f"frame has {len(pictures['frame'])} pictures, event {len(pictures['event'])}")
    for modality in MODALITIES:
        for index in range(start, end):
            if index not in pictures[modality]:
                raise Unusable(f"{modality} picture {index:05d}.jpg of the segment [{start}, {end}) is missing")
            if pictures[modality][index] == 0:
                raise Unusable(f"{modality} picture {index:05d}.jpg is empty")
    return SequenceRecord(
        name, **parsed._asdict(), split=entry["subset"], start=start, end=end,
        frame_folder=folders["frame"][emotion, name], event_folder=folders["event"][emotion, name],
    )  # fmt: skip


def _segment(entry: dict[str, Any]) -> tuple[int, int]:
    segment = entry["annotations"].get("segment")
    if not (isinstance(segment, list) and len(segment) == 2 and all(type(bound) is int for bound in segment)):
        raise Unusable(f"segment {segment!r} is not [start, end]")
    start, end = segment
    if not 0 <= start < end:
        raise Unusable(f"segment [{start}, {end}) holds no picture")
    return start, end

