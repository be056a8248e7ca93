"""What a wearer's labelled spans have become: features of frozen backbones, sealed. No pictures; NumPy only.

    LESSONS/GENERATION/rounds/CLIP.sealed      features of a clip that awaits its part in a round of the fleet
    LESSONS/GENERATION/again/CLIP.sealed       of one that a round had, and that is to be learned here once more
    LESSONS/GENERATION/held-out/CLIP.sealed    a window of a clip that is never learned: models are tried on it
    LESSONS/GENERATION/memory.sealed           a window of each clip that was learned (`mcoe_model.learning.replay`)
    LESSONS/taken/GENERATION/CLIP              empty: a round of this generation had the clip; none will have it again
    LESSONS/result.sealed                      what was learned last, until the wearer's store has it

A clip is one version of one span's label, ``SPAN-LABEL``; another label or other bounds make another clip. What another
generation's backbones made lies apart and is never read with it; once nobody uses that generation any more it goes, and
what can still be decoded is encoded anew (`client.wearable.learning`). Which clips its rounds had is remembered.

Days count from 1970 (UTC). 0 is none: a clock that was known to be wrong tells no day, so that what it dated is dated
when the clock is right, and nothing is too old before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.sampling import window_law
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.files import fsync_folder, full_disk_named
from mcoe_model.learning.replay import UNKNOWN_LIGHTING, ReplayMemory
from mcoe_model.names import EMOTIONS
from mcoe_model.sealed import read_sealed, write_sealed
from mcoe_model.tensors import pack_with, unpack_with

#: One span in so many is held out, whatever it is called, so that a span which was learned once never judges.
HELD_OUT = 5
#: Held-out clips that are kept, the newest: they are read whenever a model is tried.
MOST_HELD_OUT = 300
#: Days after which a clip that no round has asked for is let go; the memory has a window of it.
WAITING_DAYS = 60

_TAKEN, _MEMORY, _RESULT = "taken", "memory.sealed", "result.sealed"

Features = Mapping[tuple[str, str], NDArray[np.float32]]


def clip_name(span: int, label: int) -> str:
    """The clip of a version of a span's label."""
    return f"{span}-{label}"


def clip_of(name: str) -> tuple[int, int]:
    """Span and label of a clip."""
    span, label = name.split("-")
    return int(span), int(label)


def is_held_out(span: int) -> bool:
    """Whether a span is never learned."""
    return span % HELD_OUT == HELD_OUT - 1


@dataclass(frozen=True, eq=False)
class Clip:
    """Features of a clip's pictures: by modality and role (N, F), as `FeatureSamples` has them.

    ``emotion`` is an index into EMOTIONS, ``day`` as in the module, ``lighting`` is one of STRATUM_LIGHTINGS.
    """

    name: str
    emotion: int
    day: int
    features: Features
    lighting: str = UNKNOWN_LIGHTING

    @property
    def span(self) -> int:
        """Which span it is of."""
        return clip_of(self.name)[0]

    def window(self) -> Clip:
        """From first to last picture of the middle window of its sampling law, the one that models are tried on.

        Of a clip of just that length it is the middle one again.
        """
        windows = window_law(len(next(iter(self.features.values())))).windows  # (W, samples)
        first, last = windows[len(windows) // 2][[0, -1]]
        kept = {stream: rows[first : last + 1] for stream, rows in self.features.items()}
        return replace(self, features=kept)


@dataclass(frozen=True)
class Result:
    """What the learning process did with some clips, as the wearer's store will have it.

    ``model_sha256`` is the model that was learned from ``base_sha256``; None where there was none, of which ``outcome``
    then says why; ``spans`` is how many of the clips were learned. ``labels``: the emotions of the held-out clips;
    ``before`` and ``after``: which of them base and model recognise. ``memory``: the replay memory as it is from now
    on, empty for no change.
    """

    generation: str
    clips: tuple[str, ...]
    base_sha256: str
    model_sha256: str | None
    outcome: str
    spans: int
    seconds: float
    labels: tuple[int, ...] = ()
    before: tuple[bool, ...] = ()
    after: tuple[bool, ...] = ()
    memory: bytes = b""


class LessonBook:
    """The folder of one generation (its id), under ``key`` (32 bytes).

    A file that cannot be read is as good as none: its span is encoded again while its recording is there. One process
    writes at a time: the one that learns, and the main process while that does not run; the fleet's part only removes
    clips that a round has taken, and notes them.
    """

    def __init__(self, folder: Path, key: bytes, generation: str) -> None:
        self._folder = folder
        self._key = key
        self._folders = tuple(folder / generation / kind for kind in ("rounds", "held-out", "again"))
        self._rounds, self._held_out, self._again = self._folders
        self._taken = folder / _TAKEN / generation
        self._memory = folder / generation / _MEMORY

    def put(self, clip: Clip) -> None:
        """Keep a clip in place of all others of its span. Raises DiskFull."""
        held = is_held_out(clip.span)
        folder = self._again if (self._taken / clip.name).exists() else self._rounds
        kept, folder = (clip.window(), self._held_out) if held else (clip, folder)
        tensors = {".".join(stream): rows for stream, rows in kept.features.items()}
        said = {"emotion": EMOTIONS[clip.emotion], "day": str(clip.day), "lighting": clip.lighting}
        write_sealed(folder / f"{clip.name}.sealed", self._key, _context(clip.name), [pack_with(tensors, said)])
        for folder in self._folders:
            for path in folder.glob(f"{clip.span}-*.sealed"):
                if path.stem != clip.name:
                    path.unlink(missing_ok=True)
        for name in self.held_out[:-MOST_HELD_OUT]:
            self._held_out.joinpath(f"{name}.sealed").unlink(missing_ok=True)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Clips that await a round, in order."""
        return _names(self._rounds)

    @property
    def held_out(self) -> tuple[str, ...]:
        """Clips that models are tried on, in order."""
        return _names(self._held_out)

    @property
    def encoded(self) -> frozenset[str]:
        """Every clip whose features are here."""
        return frozenset(name for folder in self._folders for name in _names(folder))

    def clips(self, names: Collection[str]) -> list[Clip]:
        """Those of these names that are there and can be read, in order."""
        found = []
        for folder in self._folders:
            for name in _names(folder):
                if name in names and (clip := self._read(folder / f"{name}.sealed")) is not None:
                    found.append(clip)
        return found

    def take(self, names: Collection[str]) -> None:
        """A round has these: they await none, now and when this generation comes again. Raises DiskFull."""
        with full_disk_named(self._taken):
            self._taken.mkdir(parents=True, exist_ok=True)
            for name in names:
                (self._taken / name).touch()
            fsync_folder(self._taken)
        for name in names:
            (self._rounds / f"{name}.sealed").unlink(missing_ok=True)

    def expire(self, today: int) -> None:
        """Let go of what no round will ask for any more, and date what a wrong clock dated. Raises DiskFull."""
        for clip in self.clips(self.waiting) if today else ():
            if not clip.day:
                self.put(replace(clip, day=today))
            elif clip.day < today - WAITING_DAYS:
                (self._rounds / f"{clip.name}.sealed").unlink(missing_ok=True)

    def forget_again(self) -> None:
        """What was to be learned here once more is learned."""
        shutil.rmtree(self._again, ignore_errors=True)

    def read_memory(self) -> bytes | None:
        """The replay memory's bytes; None where there is none that can be read."""
        try:
            return b"".join(read_sealed(self._memory, self._key, "memory"))
        except (DataMissing, DataInvalid):
            return None

    def write_memory(self, content: bytes) -> None:
        """Raises DiskFull."""
        write_sealed(self._memory, self._key, "memory", [content])

    def forget_memory(self) -> None:
        """It cannot be read, or nothing is left of it."""
        self._memory.unlink(missing_ok=True)

    def _read(self, path: Path) -> Clip | None:
        try:
            tensors, said = unpack_with(b"".join(read_sealed(path, self._key, _context(path.stem))))
            features = {(name.split(".")[0], name.split(".")[1]): rows for name, rows in tensors.items()}
            lighting = said.get("lighting", UNKNOWN_LIGHTING)  # earlier versions did not look
            return Clip(path.stem, EMOTIONS.index(said["emotion"]), int(said["day"]), features, lighting)
        except (DataMissing, DataInvalid, ValueError, KeyError, IndexError):
            path.unlink(missing_ok=True)
            return None


class ResultFile:
    """What was learned last, memory and all, in one file that is written once the model is: so that it counts once."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._path = folder / _RESULT
        self._key = key

    def write(self, result: Result) -> None:
        """Raises DiskFull."""
        memory = {"memory": np.frombuffer(result.memory, np.uint8)}
        said = json.dumps(asdict(replace(result, memory=b"")) | {"memory": ""})
        write_sealed(self._path, self._key, "result", [pack_with(memory, {"result": said})])

    def read(self) -> Result | None:
        """None where nothing waits for the store; what cannot be read is removed, and learned again."""
        try:
            tensors, said = unpack_with(b"".join(read_sealed(self._path, self._key, "result")))
            plain: dict[str, Any] = json.loads(said["result"]) | {"memory": tensors["memory"].tobytes()}
            lists: dict[str, Any] = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
            return Result(**plain | lists)
        except DataMissing:
            return None
        except (DataInvalid, ValueError, TypeError, KeyError):
            self.remove()
            return None

    def remove(self) -> None:
        """The store has it."""
        self._path.unlink(missing_ok=True)


def generations(folder: Path) -> tuple[str, ...]:
    """Those (their ids) that something is kept of."""
    return tuple(sorted(path.name for path in folder.glob("[!.]*") if path.is_dir() and path.name != _TAKEN))


def clips_of_generation(folder: Path, key: bytes, generation: str) -> frozenset[str]:
    """Every clip that anything is kept of in a generation's folder: features, a window, or its part in the memory."""
    book = LessonBook(folder, key, generation)
    try:
        remembered = ReplayMemory.from_bytes(book.read_memory() or b"", generation=None).names
    except DataInvalid:
        remembered = ()
    return book.encoded | {*remembered}


def forget_generation(folder: Path, generation: str) -> None:
    """Remove all of a generation; at one blow, so that it is either known still or nothing of it is."""
    gone = folder / f".{generation}"
    shutil.rmtree(gone, ignore_errors=True)  # of a process that died
    (folder / generation).rename(gone)
    fsync_folder(folder)
    shutil.rmtree(gone, ignore_errors=True)


def keep_lessons(folder: Path, key: bytes, stand: Collection[str], today: int) -> None:
    """Remove every clip but these, also from memories: others were discarded, or are called differently now.

    And what is too old ``today``. To be called each day.
    """
    for begun in folder.glob(".*"):  # a generation that `forget_generation` did not come to the end of
        shutil.rmtree(begun, ignore_errors=True)
    for path in folder.glob("*/*/*-*.sealed"):
        if path.stem not in stand:
            path.unlink(missing_ok=True)
    for path in folder.glob(f"{_TAKEN}/*/*"):
        if path.name not in stand:
            path.unlink(missing_ok=True)
    for generation in generations(folder):
        book = LessonBook(folder, key, generation)
        book.expire(today)
        content = book.read_memory()
        try:
            memory = ReplayMemory.from_bytes(content or b"", generation=None)
        except DataInvalid:
            book.forget_memory()
            continue
        left = memory.without(set(memory.names) - set(stand)).expire(today)
        if left.exemplars != memory.exemplars:
            book.write_memory(left.to_bytes())


def forget_spans(folder: Path, spans: Collection[int]) -> bool:
    """Remove the clips of these spans; needs no key. Whether a memory, which needs one, may have a window of them.

    What was learned last and is not in the store yet goes, too: it is learned again, without them.
    """
    for path in (*folder.glob("*/*/*-*.sealed"), *folder.glob(f"{_TAKEN}/*/*-*")):
        if clip_of(path.stem)[0] in spans:
            path.unlink(missing_ok=True)
    if spans:
        (folder / _RESULT).unlink(missing_ok=True)
    return bool(spans) and any(folder.glob(f"*/{_MEMORY}"))


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted((path.stem for path in folder.glob("*-*.sealed")), key=clip_of))


def _context(name: str) -> str:
    return f"clip {name}"
