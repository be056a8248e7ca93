"""Leave one subject out: CMFNet learns the clips of all others, and is asked about those of the one, after every epoch.

A run's folder says it all: ``run.json`` (settings and origin), ``clips.json`` (who shows what in which clip),
``pictures.npy`` (decoded, removed at the end), ``folds/<subject's number>.json`` (what was predicted after every epoch)
and ``summary.json``. A fold is finished when its file has all epochs.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcoe_model.data.micro_expressions import CLASSES, Unusable, decode, read_micro_expressions
from mcoe_model.errors import DataInvalid, McoeError, NotResumable, OutputExists, SettingsError, TooFewSubjects
from mcoe_model.files import atomic_write, read_json, write_json
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.fine_tune import Epoch, fine_tune
from mcoe_model.learning.megc import Fold, best_epoch_mean, pooled, unweighted
from mcoe_model.learning.micro_samples import MicroSamples, measure_scale, predict
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.networks.cmfnet import CmfnetConfig
from mcoe_model.progress import Progress, silent
from mcoe_model.streams import stream_seed
from simulations.console import Crew, Display
from simulations.provenance import origin

#: The released loss's weights of negative, positive and surprise.
CLASS_WEIGHTS = (0.3, 0.35, 0.35)


@dataclass(frozen=True)
class MicroSettings:
    """What is run: the published network and recipe, but for what these say."""

    data: str
    epochs: int = 200
    size: int = 128  # side of the pictures [pixels]
    seed: int = 0

    def __post_init__(self) -> None:
        found = []
        if not 1 <= self.epochs <= 10_000:
            found.append(f"--epochs must be between 1 and 10000, not {self.epochs}")
        if not 16 <= self.size <= 512:
            found.append(f"--size must be between 16 and 512 pixels, not {self.size}")
        if self.seed < 0:
            found.append(f"--seed must be at least 0, not {self.seed}")
        if found:
            raise SettingsError(found)

    @property
    def config(self) -> CmfnetConfig:
        """The published network for pictures of this size."""
        return CmfnetConfig(
            "cmfnet", input_size=self.size, channels=3, classes=CLASSES, class_weights=CLASS_WEIGHTS
        )

    @property
    def recipe(self) -> FineTuneSettings:
        """The published recipe."""
        return replace(self.config.published_recipe.training, epochs=self.epochs)


@dataclass(frozen=True)
class Paths:
    """The files of a run."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run.json"

    @property
    def clips(self) -> Path:
        return self.folder / "clips.json"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures.npy"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def fold(self, number: int) -> Path:
        return self.folder / "folds" / f"{number:03}.json"

    def checkpoint(self, number: int) -> Path:
        return self.folder / "folds" / f"{number:03}.checkpoint"


@dataclass(frozen=True)
class Clips:
    """The usable clips of a run, in the table's order, and the rows that could not be used."""

    names: tuple[str, ...]
    databases: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: tuple[int, ...]
    unusable: tuple[dict[str, Any], ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Who is left out in each fold: every subject, in ascending order."""
        return tuple(sorted(set(self.subjects)))

    def of(self, subject: str) -> tuple[int, ...]:
        """Where a subject's clips are."""
        return tuple(place for place, owner in enumerate(self.subjects) if owner == subject)

    @staticmethod
    def read(path: Path) -> Clips:
        return Clips(**{name: tuple(values) for name, values in read_json(path).items()})


def begin_or_resume(settings: MicroSettings, folder: Path, display: Display) -> Clips:
    """Claim the folder and decode the clips, or go on with the run that is in it.

    Raises NotResumable when that has other settings, OutputExists when the folder holds something else, DataMissing,
    DataInvalid or TooFewSubjects when the data are of no use; a new folder then goes again.
    """
    paths = Paths(folder)
    new = not paths.run.exists()
    if new and folder.exists():
        raise OutputExists(f"{folder} exists and holds no such run; name another with --out")
    if not new and _settings(paths) != settings:
        raise NotResumable(f"{folder} is a run with other settings; give those again, or name another with --out")
    if new:
        write_json(paths.run, {"settings": asdict(settings), **origin()})
    try:
        if not paths.clips.exists():
            _prepare(settings, paths, display)
    except McoeError:
        if new:
            shutil.rmtree(folder)
        raise
    return Clips.read(paths.clips)


def run(folder: Path, workers: int, display: Display) -> dict[str, Any]:
    """Train every fold that is not finished; returns the summary that was written."""
    started = time.monotonic()
    paths = Paths(folder)
    settings, clips = _settings(paths), Clips.read(paths.clips)
    crew = Crew(workers, display)
    try:
        jobs = [
            crew.start(f"without {subject}", train_fold, folder, number)
            for number, subject in enumerate(clips.left_out)
            if len(_predicted(paths.fold(number))) < settings.epochs
        ]
        for job in jobs:
            job.result()
    finally:
        crew.close()
    summary = summarise(settings, clips, [_predicted(paths.fold(number)) for number in range(len(clips.left_out))])
    write_json(paths.summary, summary | {"seconds": round(time.monotonic() - started, 1)})
    paths.pictures.unlink(missing_ok=True)  # people's faces, which nothing reads any more
    return read_json(paths.summary)


def train_fold(folder: Path, number: int, progress: Progress = silent) -> None:
    """A fresh model learns everybody else's clips; what it says of the one's is kept after every epoch."""
    paths = Paths(folder)
    settings, clips = _settings(paths), Clips.read(paths.clips)
    subject = clips.left_out[number]
    videos = np.load(paths.pictures, mmap_mode="r", allow_pickle=False)  # (N, T, S, S, 3)
    tested = clips.of(subject)
    learned = tuple(place for place in range(len(clips.names)) if place not in tested)
    scale = measure_scale(videos, learned)

    def some(places: tuple[int, ...]) -> MicroSamples:
        labels = np.array([clips.labels[place] for place in places], np.int64)
        return MicroSamples(videos, places, tuple(clips.names[place] for place in places), labels, scale)

    keys = (settings.seed, "leave one out", subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(*keys, "weights"))
        model = settings.config.make()
    held_out = some(tested)

    def keep(epoch: Epoch) -> None:
        # Epochs that a resumed run repeats replace what was there.
        before = _predicted(paths.fold(number))[: epoch.number - 1]
        said = [*before, predict(model, held_out).tolist()]
        write_json(paths.fold(number), {"subject": subject, "clips": held_out.names, "predicted": said})

    checkpoint = Checkpoint(paths.checkpoint(number))
    fine_tune(
        model, some(learned), settings.recipe, train_mode="full", keys=keys,
        decay=settings.config.published_recipe.decay, checkpoint=checkpoint, progress=progress, on_epoch=keep,
    )  # fmt: skip


def summarise(settings: MicroSettings, clips: Clips, predicted: list[list[list[int]]]) -> dict[str, Any]:
    """The measures over all folds and for each database; ``predicted`` (folds, epochs, clips of the fold)."""
    folds = [
        Fold(np.array([clips.labels[place] for place in clips.of(subject)]), np.array(said))
        for subject, said in zip(clips.left_out, predicted, strict=True)
    ]
    databases = [clips.databases[clips.of(subject)[0]] for subject in clips.left_out]
    return {
        "data": settings.data,
        "settings": asdict(settings),
        "subjects": len(folds),
        **_measures(folds),
        "per_database": {
            name: _measures([fold for fold, of in zip(folds, databases, strict=True) if of == name])
            for name in sorted(set(databases))
        } if len(set(databases)) > 1 else {},
        "unusable": list(clips.unusable),
    }  # fmt: skip


def _measures(folds: list[Fold]) -> dict[str, Any]:
    counts = pooled(folds, len(CLASSES))
    return {
        "clips": dict(zip(CLASSES, counts.sum(1).tolist(), strict=True)),
        "uf1": unweighted(counts).uf1,
        "uar": unweighted(counts).uar,
        "accuracy": float(np.trace(counts) / counts.sum()),
        "confusion": counts.tolist(),
        "best_epoch_mean_of_folds": best_epoch_mean(folds, len(CLASSES))._asdict(),
    }


def _prepare(settings: MicroSettings, paths: Paths, display: Display) -> None:
    """Decode what the network will see of every clip; the list of clips is written last."""
    root = Path(settings.data)
    index = read_micro_expressions(root, display.phase("read the table"))
    unusable, used, videos = list(index.unusable), [], []
    frames, progress = settings.config.frames, display.phase("decode clips")
    for done, clip in enumerate(index.clips):
        progress(done, len(index.clips), "clips decoded")
        video = decode(root, clip, frames=frames, size=settings.size)
        if isinstance(video, str):
            unusable.append(Unusable(clip.line, clip.name, video))
        else:
            used.append(clip)
            videos.append(video)
    progress(len(index.clips), len(index.clips), "clips decoded")
    if not used:
        raise DataInvalid(f"{root} holds no usable clip: {len(unusable)} are not: {says(unusable[0])}")
    if len({clip.subject for clip in used}) < 2:
        raise TooFewSubjects(f"all usable clips of {root} are of {used[0].subject}: nobody is left to learn from")
    with atomic_write(paths.pictures) as file:
        np.save(file, np.stack(videos), allow_pickle=False)
    write_json(paths.clips, {
        "names": [clip.name for clip in used],
        "databases": [clip.database for clip in used],
        "subjects": [clip.subject for clip in used],
        "labels": [clip.label for clip in used],
        "unusable": [fault._asdict() for fault in sorted(unusable)],
    })  # fmt: skip


def says(fault: Unusable) -> str:
    """One unusable row as a line."""
    return f"line {fault.line}, {fault.name or 'no clip'}: {fault.reason}"


def _predicted(path: Path) -> list[list[int]]:
    """What a fold's model said after every epoch so far."""
    return list(read_json(path)["predicted"]) if path.exists() else []


def _settings(paths: Paths) -> MicroSettings:
    try:
        return MicroSettings(**read_json(paths.run)["settings"])
    except (ValueError, KeyError, TypeError) as fault:
        raise NotResumable(f"{paths.folder} holds no run to go on with ({fault}); name another with --out") from fault
