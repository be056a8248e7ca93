"""A comparison from data to summary: prepare -> a base for each seed -> every arm on every device -> results.

Each piece of work is a file, and a piece whose file is there is not done again; so a run that was stopped goes on. In
rounds all devices of an arm are one piece, which is done again unless the files of all of them are there.

    <run>/seed-<seed>/<method and limit>/<device>.npz       what was predicted of every clip after every stage

- ``names``, ``subjects``, ``emotions``: (N,) of the clips that are asked.
- ``held_out``, ``unseen``: (T, N) which of them are asked for which of T stages' domains.
- ``predicted``: (T + 1, N, 7) the share of each clip's windows that was taken for each emotion, the base's first.
- ``bytes_kept``, ``rejected``.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mcoe_model.data.cache import Clips, open_clips
from mcoe_model.data.lighting import lighting_of
from mcoe_model.data.partition import Split, split_subjects
from mcoe_model.errors import DataMissing, NotResumable, SettingsError
from mcoe_model.files import atomic_write, read_json, write_bytes, write_json
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.features import cached_features
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import PictureSamples, measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, load_model, tensors_of
from mcoe_model.model_file import Generation, ModelCard, file_sha256, read_card, write_model
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, build, picture_encoder
from mcoe_model.progress import Progress, silent
from simulations.console import Crew, Display
from simulations.continual_rounds import check_cohorts, learn_in_rounds
from simulations.continual_settings import Arm, ContinualSettings
from simulations.label_noise import confusion, given_label
from simulations.lessons import Known, Learned, Questions, begin, learn_stream
from simulations.provenance import origin, utc_text
from simulations.scene import cache_folder, synthetic_root
from simulations.streams import DeviceStream, device_streams, people_of

#: Who is base, learner and unseen does not depend on the runs' seeds: the same people are compared under all of them.
SPLIT_SEED = 0
#: Pieces in which a seed's features are computed.
PORTIONS = 8
#: What a run's folder holds; 1 had accuracies alone, no predictions.
FORMAT = 2


class Run:
    """A prepared run, found again from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = read_json(folder / "run.json")
        self.settings = ContinualSettings(**record["settings"])
        self.left_out: dict[str, str] = record["left_out"]
        self.arms: tuple[Arm, ...] = tuple(arm for arm in self.settings.arms if arm.label not in self.left_out)
        self.clips = Clips(Path(record["clips"]))
        self._places = {clip.name: place for place, clip in enumerate(self.clips.records)}
        self.split, self.streams = _divided(self.settings, self.clips)

    @property
    def learners(self) -> dict[str, tuple[DeviceStream, ...]]:
        """By the name of its stream, the devices that learn it in rounds."""
        return _learners(self.streams, self.clips)

    @property
    def synthetic(self) -> bool:
        return self.settings.synthetic is not None

    def base(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}" / "base.safetensors"

    def result(self, seed: int, arm: Arm, device: str) -> Path:
        folder = arm.label.replace(" ", "-").replace(":", "_")
        return self.folder / f"seed-{seed}" / folder / f"{device}.npz"

    def learned(self, seed: int, arm: Arm, device: str) -> Learned:
        """What a piece of work found."""
        with np.load(self.result(seed, arm, device), allow_pickle=False) as found:
            clips = tuple(self._places[name] for name in found["names"].tolist())
            emotions = np.array([EMOTIONS.index(name) for name in found["emotions"].tolist()], np.int64)
            questions = Questions(clips, emotions, found["held_out"], found["unseen"])
            return Learned(questions, found["predicted"], int(found["bytes_kept"]), int(found["rejected"]))

    def keep(self, seed: int, arm: Arm, device: str, learned: Learned) -> None:
        """Write what a piece of work found. The same findings give the same bytes."""
        asked = learned.questions
        records = [self.clips.records[clip] for clip in asked.clips]
        with atomic_write(self.result(seed, arm, device)) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                names=np.array([record.name for record in records]),
                subjects=np.array([record.subject for record in records]),
                emotions=np.array([EMOTIONS[emotion] for emotion in asked.emotions]),
                held_out=asked.held_out,
                unseen=asked.unseen,
                predicted=learned.predicted,
                bytes_kept=np.array(learned.bytes_kept),
                rejected=np.array(learned.rejected),
            )


@lru_cache(maxsize=1)
def open_run(folder: Path) -> Run:
    """The run in a folder. Raises NotResumable when there is none."""
    try:
        return Run(folder)
    except (FileNotFoundError, KeyError, ValueError, TypeError) as fault:
        raise NotResumable(f"{folder} holds no comparison to go on with ({fault}); name another with --out") from fault


def prepare(settings: ContinualSettings, folder: Path, workers: int, display: Display) -> Run:
    """Make or read the data and claim the folder, or go on with the run of these settings that is there.

    Raises SettingsError, NotResumable for a folder of other settings, and what the data or the stream have to say.
    """
    record = folder / "run.json"
    confusion(settings.label_noise)
    if record.exists():
        run = open_run(folder)
        if run.settings != settings:
            raise NotResumable(f"{folder} holds a comparison with other settings; name another folder with --out")
        if read_json(record).get("format") != FORMAT:
            raise NotResumable(
                f"{folder} was made by an earlier version, which kept no predictions; name another folder with --out "
                f"(its base models can be taken with --bases {folder})"
            )
        return run
    if folder.exists() and any(folder.iterdir()):
        raise NotResumable(f"{folder} holds something else; name another folder with --out")
    if settings.synthetic is None:
        root = Path(settings.data)
    else:
        root = synthetic_root(settings.synthetic, workers, display.phase("synthetic data"))
    size = build(settings.model, seed=0).config.input_size
    clips = open_clips(
        root, size=size, cache=cache_folder() / "clips", progress=display.phase("decode pictures"), workers=workers
    )
    about = {"data": "synthetic" if settings.synthetic else str(root.resolve()), "data_sha256": clips.sha256}
    split, streams = _divided(settings, clips)  # what these data cannot show is refused before anything is written
    if settings.federated:
        check_cohorts(_learners(streams, clips), settings.lesson, settings.rule)
    noise = confusion(settings.label_noise).tolist()
    where = {"clips": str(clips.path.resolve()), "split_sha256": split.sha256, "label_noise": noise}
    own = {"left_out": _left_out(settings)}
    if settings.bases:
        _check_bases(settings, Path(settings.bases), about | where)
    write_json(record, {"format": FORMAT, "settings": asdict(settings), **origin(), **about, **where, **own})
    return open_run(folder)


def learn_everything(run: Run, workers: int, display: Display) -> None:
    """Every base, then every arm on every device, as far as they are not there."""
    started = time.monotonic()
    seeds = range(run.settings.seeds)
    crew = Crew(workers, display)
    try:
        bases = [(train_base, seed) for seed in seeds if not run.base(seed).exists()]
        for future in crew.start_each("base models", bases, run.folder) if bases else []:
            future.result()
        jobs = [
            (learn_arm, seed, number)
            for seed in seeds
            for number, arm in enumerate(run.arms)
            if not all(run.result(seed, arm, stream.device).exists() for stream in run.streams)
        ]
        waiting = sorted({seed for _, seed, _ in jobs})
        encoding = [(encode, seed, portion) for seed in waiting for portion in range(PORTIONS)]
        for future in crew.start_each("features", encoding, run.folder) if jobs else []:
            future.result()
        for future in crew.start_each("methods x seeds", jobs, run.folder) if jobs else []:
            future.result()
    finally:
        crew.close()
    if bases or jobs:
        bases_sha256 = [file_sha256(run.base(seed)) for seed in seeds]
        done = {"finished": utc_text(), "seconds": time.monotonic() - started, "bases_sha256": bases_sha256}
        write_json(run.folder / "run.json", read_json(run.folder / "run.json") | done)


def train_base(folder: Path, seed: int, progress: Progress = silent) -> None:
    """The base of one seed: trained on the base subjects, under normal light alone where light is what changes."""
    run = open_run(folder)
    settings, records = run.settings, run.clips.records
    if settings.bases:
        write_bytes(run.base(seed), (Path(settings.bases) / run.base(seed).relative_to(folder)).read_bytes())
        return
    indices = tuple(
        index
        for index, record in enumerate(records)
        if record.subject in run.split.base and settings.base_lighting in (None, record.lighting)
    )
    if not indices:
        raise SettingsError([f"no base subject was recorded under {settings.base_lighting} light"])
    normalisation = measure_normalisation(run.clips, indices)
    model = build(settings.model, seed=seed)
    fine_tune(
        model,
        PictureSamples(run.clips, indices, normalisation),
        settings.base_recipe,
        train_mode="full",
        keys=(seed, "continual base"),
        checkpoint=Checkpoint(run.base(seed).with_suffix(".checkpoint")),
        progress=progress,
    )
    tensors = tensors_of(model)
    size, top_k = run.clips.size, model.config.top_k
    generation = Generation(settings.model, backbone_sha256(tensors), size, normalisation, top_k=top_k)
    trained_on = {"data": "synthetic" if run.synthetic else settings.data, "part": "base"}
    write_model(run.base(seed), tensors, ModelCard(generation, "base of a comparison", trained_on=trained_on))


def encode(folder: Path, seed: int, portion: int, progress: Progress = silent) -> None:
    """Put the features of a portion of the clips into the cache, so that no two workers compute the same ones."""
    run = open_run(folder)
    loaded, card = load_model(run.base(seed))
    clips, cache = _clips(run)[portion::PORTIONS], cache_folder() / "features"
    cached_features(picture_encoder(loaded), card.generation, run.clips, clips, cache)


def learn_arm(folder: Path, seed: int, number: int, progress: Progress = silent) -> None:
    """One arm on every device whose result is not there; in rounds on all of them together."""
    run = open_run(folder)
    settings, arm = run.settings, run.arms[number]
    base, known = base_and_clips(folder, seed)
    if settings.federated:
        together = learn_in_rounds(
            base,
            read_card(run.base(seed)),
            known,
            run.streams,
            run.learners,
            arm.method,
            rule=settings.rule,
            limit_bytes=arm.limit_bytes or 0,
            recipe=settings.recipe,
            lesson_clips=settings.lesson,
            exact=settings.windows == "exact",
            seed=seed,
        )
        for stream, learned in zip(run.streams, together, strict=True):
            run.keep(seed, arm, stream.device, learned)
        return
    for done, stream in enumerate(run.streams):
        progress(done, len(run.streams), f"seed {seed}, {arm.label}")
        if run.result(seed, arm, stream.device).exists():
            continue
        learned = learn_stream(
            base,
            known,
            stream,
            arm.method,
            limit_bytes=arm.limit_bytes or 0,
            recipe=settings.recipe,
            lesson_clips=settings.lesson,
            exact=settings.windows == "exact",
            keys=(seed, "continual", stream.device),
        )
        run.keep(seed, arm, stream.device, learned)


@lru_cache(maxsize=1)
def base_and_clips(folder: Path, seed: int) -> tuple[MCOENet, Known]:
    """The base of a seed, and everything that its devices meet."""
    run = open_run(folder)
    loaded, card = load_model(run.base(seed))
    model, indices = picture_encoder(loaded), _clips(run)
    samples = cached_features(model, card.generation, run.clips, indices, cache_folder() / "features")
    noise = confusion(run.settings.label_noise)
    learned = {clip for stream in run.streams for stage in stream.stages for clip in stage.learned}
    told = {
        clip: given_label(noise, run.clips.records[clip].class_index, run.clips.records[clip].name, seed=seed)
        for clip in sorted(learned)
    }
    lightings = {clip: lighting_of(np.asarray(run.clips.pictures(clip)[0])) for clip in sorted(learned)}
    return model, Known(samples, {clip: place for place, clip in enumerate(indices)}, lightings, told)


def _check_bases(settings: ContinualSettings, other: Path, here: dict[str, Any]) -> None:
    """Refuse bases that were not trained as these settings would train them. Raises DataMissing, SettingsError."""
    missing = [seed for seed in range(settings.seeds) if not (other / f"seed-{seed}" / "base.safetensors").exists()]
    if missing:
        raise DataMissing(f"--bases {other} has no base of seed {missing[0]}; name a comparison that trained them")
    record = read_json(other / "run.json")
    theirs = ContinualSettings(**record["settings"])
    faults = [
        f"--bases {other} was run with another {what}"
        for what, differs in {
            "model": theirs.model != settings.model,
            "number of --base-epochs": theirs.base_epochs != settings.base_epochs,
            "light for the base": theirs.base_lighting != settings.base_lighting,
            "data set": record["data_sha256"] != here["data_sha256"],
            "split of the subjects": record["split_sha256"] != here["split_sha256"],
        }.items()
        if differs
    ]
    if faults:
        raise SettingsError(faults)


def _divided(settings: ContinualSettings, clips: Clips) -> tuple[Split, tuple[DeviceStream, ...]]:
    """Who is base, learner and unseen, and the learners' streams; validation subjects learn while weights are chosen,
    and the test subjects then stay unasked."""
    split = split_subjects(clips.records, seed=SPLIT_SEED, fold=settings.fold)
    learners, unseen = (split.clients, split.test) if settings.part == "clients" else (split.validation, split.clients)
    return split, device_streams(settings.stream, clips.records, learners, unseen, seed=SPLIT_SEED)


def _learners(streams: tuple[DeviceStream, ...], clips: Clips) -> dict[str, tuple[DeviceStream, ...]]:
    return {stream.device: people_of(stream, clips.records) for stream in streams}


def _clips(run: Run) -> tuple[int, ...]:
    """Every clip that any device meets."""
    return tuple(sorted({clip for stream in run.streams for clip in stream.clips}))


def _left_out(settings: ContinualSettings) -> dict[str, str]:
    """The arms that cannot keep within their limit, by label, and why."""
    base, found = picture_encoder(build(settings.model, seed=0)), {}
    for arm in settings.arms:
        try:
            begin(arm.method, base, arm.limit_bytes or 0, in_rounds=settings.federated)
        except SettingsError as fault:
            found[arm.label] = str(fault)
    return found
