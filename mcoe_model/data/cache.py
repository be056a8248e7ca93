"""Every clip of a data set decoded once, into one memory-mapped file of grey uint8 pictures of one size.

What a reader hands over (`mcoe_model.data.reader`) becomes frames and event pictures here, whatever data set it is of:
events are drawn by a representation (`mcoe_model.data.representations`) on the pixels of the frames, and everything is
resized. Event pictures that are there already, as SEE's, are SEE's `ternary` and nothing else.

Resizing is the published one (torchvision's Resize(size) on the JPEG): Pillow's bilinear filter with antialiasing, the
shorter side to ``size``. Differs from the source: a longer side is then cropped to the centre, because the product's
networks see squares (square pictures are not touched by this), and the picture is reduced to one grey channel first
(SEE's are grey: resizing before or after copying one channel to three gives the same numbers; colour becomes luma).

Two files make a cache: ``see-<size>-<key>.u8``, all pictures, and ``.json`` beside it, written last, which names the
clips and the SHA-256 of the pictures. The key covers the reader's fingerprint (for SEE the annotation's bytes, every
picture's name, size and time), the representation, the size asked for and the format version: changed data never meet
an old cache. Opening one checks the length of the
pictures and the SHA-256 of the clip list, not the SHA-256 of the pictures, which would read gigabytes at every start:
bit rot inside the pictures is found by ``Clips.verify`` alone, which a new simulation calls once.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.reader import (
    ClipRecord,
    DataIndex,
    DataReader,
    RawEvents,
    RecordedClip,
    Skipped,
    Unusable,
    check_clip,
    checked,
    nothing_usable,
)
from mcoe_model.data.representations import TERNARY, Representation
from mcoe_model.data.see import SeeReader
from mcoe_model.errors import DataInvalid, DiskFull, SettingsError
from mcoe_model.files import atomic_write, write_json
from mcoe_model.progress import Progress, silent

_FORMAT = 2
_CHUNK = 1 << 24  # bytes hashed at a time

Pictures = NDArray[np.uint8]


class Clips:
    """The decoded clips of a data set. ``sha256`` names clip list and pictures together, whatever the machine.

    ``representation`` names how the events were drawn, in ``channels`` C pictures each; ``background`` is the grey
    value where nothing happened.
    """

    def __init__(self, path: Path) -> None:
        """Open the cache whose clip list is ``path``. Raises DataInvalid when it is damaged."""
        self.path = path
        try:
            stored = json.loads(path.read_bytes())
            content = stored["content"]
            if stored["sha256"] != _content_sha256(content):
                raise ValueError("its own SHA-256 does not fit")
            if content["format"] != _FORMAT:
                raise ValueError("it was made by another version of this program")
            self.size: int = content["size"]
            self.representation: str = content["representation"]
            self.channels: int = content["channels"]
            self.background: int = content["background"]
            self.records = tuple(ClipRecord(**record) for record in content["records"])
            self.skipped = tuple(Skipped(*fault) for fault in content["skipped"])
        except (ValueError, KeyError, TypeError) as fault:
            raise DataInvalid(f"{path} is damaged ({fault}); delete it and start again to decode anew") from fault
        self.sha256: str = stored["sha256"]
        self._pictures_sha256: str = content["pictures_sha256"]
        # (N + 1,) where each clip begins, in grey pictures: a window has one frame and C of its events
        self._begin = np.cumsum([0] + [(1 + self.channels) * record.n_frames for record in self.records])
        self._pictures = self._map()

    def __reduce__(self) -> tuple[type[Clips], tuple[Path]]:
        """A worker process that is handed this opens the files again: the pictures themselves are never sent."""
        return Clips, (self.path,)

    def pictures(self, clip: int) -> tuple[Pictures, Pictures]:
        """Frames and events of a clip, each (n, S, S) uint8, events (n, C, S, S) where they have several channels.

        Read-only views of the mapped file.
        """
        both = self._pictures[self._begin[clip] : self._begin[clip + 1]]  # (n + n C, S, S)
        frames, events = both[: self.n_frames(clip)], both[self.n_frames(clip) :]
        return frames, events if self.channels == 1 else events.reshape(-1, self.channels, self.size, self.size)

    def n_frames(self, clip: int) -> int:
        """Pictures of each modality in a clip."""
        return self.records[clip].n_frames

    def by_subject(self) -> dict[str, tuple[int, ...]]:
        """The clips of every subject, in record order; subjects in ascending order."""
        clips: dict[str, list[int]] = {subject: [] for subject in sorted({record.subject for record in self.records})}
        for clip, record in enumerate(self.records):
            clips[record.subject].append(clip)
        return {subject: tuple(indices) for subject, indices in clips.items()}

    def verify(self) -> None:
        """Read every picture and compare their SHA-256. Raises DataInvalid when a byte has changed."""
        digest = hashlib.sha256()
        flat = self._pictures.reshape(-1)
        for begin in range(0, len(flat), _CHUNK):
            digest.update(flat[begin : begin + _CHUNK].data)
        if digest.hexdigest() != self._pictures_sha256:
            raise DataInvalid(f"{_pictures_path(self.path)} has changed on disk; delete {self.path} and start again")

    def _map(self) -> Pictures:
        path = _pictures_path(self.path)
        expected = int(self._begin[-1]) * self.size**2
        length = path.stat().st_size if path.is_file() else 0
        if length != expected:
            raise DataInvalid(f"{path} has {length} bytes instead of {expected}; delete {self.path} and start again")
        return np.asarray(np.memmap(path, np.uint8, "r")).reshape(-1, self.size, self.size)


def open_clips(
    root: Path, *, size: int, cache: Path, progress: Progress | None = None, workers: int = 1
) -> Clips:
    """The pictures of the SEE data set at ``root``; see `read_clips`."""
    return read_clips(SeeReader(root), TERNARY, size=size, cache=cache, progress=progress, workers=workers)


def read_clips(
    reader: DataReader,
    representation: Representation,
    *,
    size: int,
    cache: Path,
    version: str = "",
    progress: Progress | None = None,
    workers: int = 1,
) -> Clips:
    """The clips of a data set, ``size`` pixels square, from ``cache``; decoded by ``workers`` threads when they are not
    there yet. Another process that asks for the same cache meanwhile waits for it.

    ``version`` names the code of a reader that is not ours, which may change. Clips that cannot
    be used, among them those with torn pictures, are in ``Clips.skipped``. Raises DataMissing and DataInvalid as the
    reader does, DataInvalid when nothing is usable or the cache is damaged, SettingsError for a representation that
    needs events where the data hold pictures, DiskFull with the path and the bytes needed.
    """
    index = checked(reader.index(), reader.place)
    made = "/".join([index.fingerprint, str(size), representation.name, version, str(_FORMAT)])
    path = cache / f"clips-{size}-{hashlib.sha256(made.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        with _only_builder(path, progress or silent):
            if not path.exists():
                _build(reader, index, representation, size, path, progress or silent, workers)
    return Clips(path)


def _build(
    reader: DataReader,
    index: DataIndex,
    representation: Representation,
    size: int,
    path: Path,
    progress: Progress,
    workers: int,
) -> None:
    pictures = _pictures_path(path)
    for torn in path.parent.glob(f".{pictures.name}.*"):
        torn.unlink()  # left by a build that was killed; no other build runs, we hold the lock
    needed = sum((1 + representation.channels) * record.n_frames for record in index.records) * size**2
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DiskFull(f"{path.parent} has {free:,} bytes free and the decoded pictures need {needed:,}; free some")
    records: list[ClipRecord] = []
    skipped = list(index.skipped)
    digest = hashlib.sha256()
    try:
        with atomic_write(pictures) as file:
            decoded = _decode_all(reader, representation, index.records, size, workers)
            for done, (record, result) in enumerate(zip(index.records, decoded, strict=True), start=1):
                if isinstance(result, str):
                    skipped.append(Skipped(record.name, result))
                else:
                    records.append(replace(record, n_frames=len(result) // (1 + representation.channels)))
                    digest.update(result.data)
                    file.write(result.data)
                progress(done, len(index.records), "sequences decoded")
            if not records:
                raise nothing_usable(reader.place, skipped)
    except DiskFull as fault:
        raise DiskFull(f"no space left while writing {pictures}, which needs {needed:,} bytes; free some") from fault
    content = {
        "format": _FORMAT,
        "size": size,
        "representation": representation.name,
        "channels": representation.channels,
        "background": representation.background,
        "pictures_sha256": digest.hexdigest(),
        "records": [asdict(record) for record in records],
        "skipped": [list(fault) for fault in skipped],
    }
    write_json(path, {"sha256": _content_sha256(content), "content": content})


def _decode_all(
    reader: DataReader, representation: Representation, records: tuple[ClipRecord, ...], size: int, workers: int
) -> Iterator[Pictures | str]:
    """``_decode`` of every clip, in order, by threads (Pillow decodes and resizes outside Python's lock); only a few
    clips are held at a time."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Pictures | str]] = deque()
        try:
            for record in records:
                ahead.append(pool.submit(_decode, reader, representation, record, size))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(reader: DataReader, representation: Representation, record: ClipRecord, size: int) -> Pictures | str:
    """Frames, then events, (n + n C, S, S); or why the clip cannot be used."""
    try:
        recorded = reader.clip(record)
        check_clip(recorded)
    except Unusable as fault:
        return str(fault)
    events = _event_pictures(recorded, representation, reader.place)
    both = np.empty((len(recorded.frames) + len(events), size, size), np.uint8)  # (n + n C, S, S)
    for slot, picture in enumerate((*recorded.frames, *events)):
        both[slot] = resized(Image.fromarray(picture), size)
    return both


def _event_pictures(
    recorded: RecordedClip, representation: Representation, place: str
) -> Sequence[Pictures]:
    """The n C event pictures of a clip, before they are resized."""
    raw = recorded.events
    if not isinstance(raw, RawEvents):
        if representation.name != TERNARY.name:
            raise SettingsError(
                [f"--representation {representation.name} needs events, and {place} holds event pictures; "
                 f"use --representation {TERNARY.name}, or data with the events themselves"]
            )
        return raw
    shape: tuple[int, int] = recorded.frames[0].shape
    cuts = np.searchsorted(raw.events["timestamp"], raw.edges_us, side="right")  # (n + 1,)
    windows = zip(itertools.pairwise(cuts), itertools.pairwise(raw.edges_us.tolist()), strict=True)
    return [
        picture
        for (first, last), (start_us, end_us) in windows
        for picture in representation.draw(raw.events[first:last], start_us, end_us, shape)
    ]


def resized(grey: Image.Image, size: int) -> Pictures:
    """A grey picture as a square (size, size), as the networks see it; see the module."""
    shorter = min(grey.size)
    width, height = (int(size * side / shorter) for side in grey.size)
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(grey)[top : top + size, left : left + size]


@contextmanager
def _only_builder(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of one data set's pictures, so that they are decoded by one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.stem}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(0, 1, "waiting for another process that decodes the same data")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pictures_path(path: Path) -> Path:
    return path.with_suffix(".u8")


def _content_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
