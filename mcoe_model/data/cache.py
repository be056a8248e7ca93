"""Every picture of a data set decoded once, into one memory-mapped file of grey uint8 pictures of one size.

Resizing is the published one (torchvision's Resize(size) on the JPEG): Pillow's bilinear filter with antialiasing, the
shorter side to ``size``. Differs from the source: a longer side is then cropped to the centre, because the product's
networks see squares (square pictures are not touched by this), and the picture is reduced to one grey channel first
(SEE's are grey: resizing before or after copying one channel to three gives the same numbers; colour becomes luma).

Two files make a cache: ``see-<size>-<key>.u8``, all pictures, and ``.json`` beside it, written last, which names the
clips and the SHA-256 of the pictures. The key covers the annotation's bytes, every picture's name, size and time, the
size asked for and the format version: changed data never meet an old cache. Opening one checks the length of the
pictures and the SHA-256 of the clip list, not the SHA-256 of the pictures, which would read gigabytes at every start:
bit rot inside the pictures is found by ``Clips.verify`` alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.see import SeeIndex, SequenceRecord, Skipped, nothing_usable, read_see
from mcoe_model.errors import DataInvalid, DiskFull
from mcoe_model.files import atomic_write, write_json
from mcoe_model.progress import Progress, silent

_FORMAT = 1
_CHUNK = 1 << 24  # bytes hashed at a time

Pictures = NDArray[np.uint8]


class Clips:
    """The decoded sequences of a data set. ``sha256`` names clip list and pictures together, whatever the machine."""

    def __init__(self, path: Path) -> None:
        """Open the cache whose clip list is ``path``. Raises DataInvalid when it is damaged."""
        self.path = path
        try:
            stored = json.loads(path.read_bytes())
            content = stored["content"]
            if stored["sha256"] != _content_sha256(content):
                raise ValueError("its own SHA-256 does not fit")
            self.size: int = content["size"]
            self.records = tuple(SequenceRecord(**record) for record in content["records"])
            self.skipped = tuple(Skipped(*fault) for fault in content["skipped"])
        except (ValueError, KeyError, TypeError) as fault:
            raise DataInvalid(f"{path} is damaged ({fault}); delete it and start again to decode anew") from fault
        self.sha256: str = stored["sha256"]
        self._pictures_sha256: str = content["pictures_sha256"]
        # (N + 1,) where each clip begins, in pictures of both modalities
        self._begin = np.cumsum([0] + [2 * record.n_frames for record in self.records])
        self._pictures = self._map()

    def __reduce__(self) -> tuple[type[Clips], tuple[Path]]:
        """A worker process that is handed this opens the files again: the pictures themselves are never sent."""
        return Clips, (self.path,)

    def pictures(self, clip: int) -> tuple[Pictures, Pictures]:
        """Frames and events of a clip, each (n_frames, size, size) uint8: read-only views of the mapped file."""
        both = self._pictures[self._begin[clip] : self._begin[clip + 1]]  # (2 n, S, S)
        return both[: len(both) // 2], both[len(both) // 2 :]

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
    """The pictures of the data set at ``root``, ``size`` pixels square, from ``cache``; decoded by ``workers`` threads
    when they are not there yet. Another process that asks for the same cache meanwhile waits for it.

    Sequences that cannot be used, among them those with torn pictures, are in ``Clips.skipped``. Raises DataMissing and
    DataInvalid as ``read_see`` does, DataInvalid when nothing is usable or the cache is damaged, DiskFull with the path
    and the bytes needed.
    """
    index = read_see(root)
    key = hashlib.sha256(f"{index.fingerprint}/{size}/{_FORMAT}".encode()).hexdigest()
    path = cache / f"see-{size}-{key[:16]}.json"
    if not path.exists():
        with _only_builder(path):
            if not path.exists():
                _build(root, index, size, path, progress or silent, workers)
    return Clips(path)


def _build(root: Path, index: SeeIndex, size: int, path: Path, progress: Progress, workers: int) -> None:
    pictures = _pictures_path(path)
    for torn in path.parent.glob(f".{pictures.name}.*"):
        torn.unlink()  # left by a build that was killed; no other build runs, we hold the lock
    needed = sum(2 * record.n_frames for record in index.records) * size**2
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DiskFull(f"{path.parent} has {free:,} bytes free and the decoded pictures need {needed:,}; free some")
    records: list[SequenceRecord] = []
    skipped = list(index.skipped)
    digest = hashlib.sha256()
    try:
        with atomic_write(pictures) as file:
            decoded = _decode_all(root, index.records, size, workers)
            for done, (record, result) in enumerate(zip(index.records, decoded, strict=True), start=1):
                if isinstance(result, str):
                    skipped.append(Skipped(record.name, result))
                else:
                    records.append(record)
                    digest.update(result.data)
                    file.write(result.data)
                progress(done, len(index.records), "sequences decoded")
            if not records:
                raise nothing_usable(root, skipped)
    except DiskFull as fault:
        raise DiskFull(f"no space left while writing {pictures}, which needs {needed:,} bytes; free some") from fault
    content = {
        "format": _FORMAT,
        "size": size,
        "pictures_sha256": digest.hexdigest(),
        "records": [asdict(record) for record in records],
        "skipped": [list(fault) for fault in skipped],
    }
    write_json(path, {"sha256": _content_sha256(content), "content": content})


def _decode_all(
    root: Path, records: tuple[SequenceRecord, ...], size: int, workers: int
) -> Iterator[Pictures | str]:
    """``_decode_sequence`` of every record, in order, by threads (Pillow decodes and resizes outside Python's lock);
    only a few sequences are held at a time."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Pictures | str]] = deque()
        try:
            for record in records:
                ahead.append(pool.submit(_decode_sequence, root, record, size))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_sequence(root: Path, record: SequenceRecord, size: int) -> Pictures | str:
    """Frames, then events, (2 n, S, S); or why the sequence cannot be used."""
    both = np.empty((2 * record.n_frames, size, size), dtype=np.uint8)
    names = [record.picture(modality, i) for modality in ("frame", "event") for i in range(record.start, record.end)]
    for slot, name in enumerate(names):
        try:
            both[slot] = _decode(root / name, size)
        except OSError as fault:
            if fault.errno is not None:  # the disk's fault, not the picture's: it may be gone the next time
                raise DataInvalid(f"cannot read {root / name}: {fault.strerror}") from fault
            return f"{name} is torn or no picture"
        except (SyntaxError, ValueError, Image.DecompressionBombError):  # Pillow's words for broken headers
            return f"{name} is torn or no picture"
    return both


def _decode(path: Path, size: int) -> Pictures:
    """One picture as (size, size) grey."""
    with Image.open(path) as picture:
        return resized(picture.convert("L"), size)


def resized(grey: Image.Image, size: int) -> Pictures:
    """A grey picture as a square (size, size), as the networks see it; see the module."""
    shorter = min(grey.size)
    width, height = (int(size * side / shorter) for side in grey.size)
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(grey)[top : top + size, left : left + size]


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Hold the lock of the cache folder, so that a data set is decoded by one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pictures_path(path: Path) -> Path:
    return path.with_suffix(".u8")


def _content_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
