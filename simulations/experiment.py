"""One run from data to report: prepare -> base -> rounds -> arms -> evaluation -> summary. Each phase is resumable.

A phase is finished when its files are there. Nothing depends on when a run was stopped, on the number of workers or
on the order in which their jobs end.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.markup import escape

from mcoe_model.data.partition import write_split
from mcoe_model.errors import (
    McoeError,
    MissingExtra,
    ModelInvalid,
    OutputExists,
    RoundFailed,
    SettingsError,
    TooFewSubjects,
)
from mcoe_model.files import read_json, write_json
from mcoe_model.model_file import file_sha256, read_card
from mcoe_model.networks import build
from mcoe_model.workers import one_thread
from server.acceptance import Rejected
from server.app import Event, ReplyJudged, RoundEnded, RoundOpened
from server.cohort import cohort_size
from server.registry import PUBLISHED
from simulations.answers import choose_centralised
from simulations.arms import (
    CENTRALISED,
    UNTRAINED,
    evaluate_local,
    evaluate_model,
    fresh_model,
    train_all_data,
    train_base,
    train_centralised,
)
from simulations.console import Crew, Display
from simulations.coordination import coordinate, open_registry
from simulations.data import data_root, representation_name, run_clips
from simulations.flower_engine import check_installed, run_on_flower
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.local_methods.fedbn import batch_norm_names
from simulations.own import install, recorded
from simulations.parts import divide_subjects, make_parts, subject_overlap
from simulations.provenance import describe_data, new_run, utc_text
from simulations.scene import Paths, open_scene
from simulations.settings import SimulationSettings
from simulations.summary import write_results
from simulations.tuning import begin_trial, record

CLIENT_APP = "simulations.flower_app:client_app"
#: With `--baselines auto` the baselines run for presets of at most this many samples to train all of them on.
CHEAP_PRESETS = ("mcoe-tiny", "mcoe-tiny-group")
#: At most about this many rounds are evaluated on validation: enough for a curve, however many rounds there are.
CURVE_POINTS = 12


def begin_or_resume(settings: SimulationSettings, folder: Path, display: Display, *, resumed: bool) -> None:
    """`begin` and `prepare`; when the data of a new run are of no use, its folder goes again."""
    if settings.engine == "ray":
        check_installed()
    if not resumed:
        begin(settings, folder)
    try:
        prepare(settings, folder, display)
    except (McoeError, OSError):
        if not resumed:
            shutil.rmtree(folder)
        raise


def begin(settings: SimulationSettings, folder: Path) -> None:
    """Check what the run needs, claim its folder and write down what it is.

    Raises DataMissing, ModelInvalid or MissingExtra when something is not there, SettingsError when the model is not
    what they ask for, OutputExists for the folder.
    """
    run = new_run(settings)
    install(recorded(run))
    if settings.batch_norm in ("local", "shared") and not batch_norm_names(build(settings.preset, seed=0).state_dict()):
        fault = f"--batch-norm {settings.batch_norm}: {settings.model} has no batch normalisation; leave it out"
        raise SettingsError([fault])
    if settings.base not in ("train", "scratch"):
        card = read_card(Path(settings.base))
        generation = card.generation
        there = (generation.preset, generation.input_size, generation.representation)
        wanted = (settings.preset, settings.picture_size, representation_name(settings, recorded(run)))
        if there != wanted:
            raise ModelInvalid(
                f"{settings.base} is a {there[0]} for {there[1]} pixels and {there[2]} events, the settings ask for "
                f"{wanted[0]}, {wanted[1]} and {wanted[2]}; set --model, --size and --representation to fit"
            )
        if settings.train == "head" and card.origin == UNTRAINED:
            raise ModelInvalid(
                f"{settings.base} was never trained, and --train head freezes its backbones: features of random "
                "backbones say nothing; use --train full, or a trained base"
            )
    if settings.imagenet:
        fresh_model(settings)  # a file that does not fit is known before any work
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise MissingExtra("--tensorboard needs TensorBoard: pip install 'mcoe[tensorboard]'")
    if Paths(folder).run.is_file():
        raise OutputExists(f"{folder} exists already; go on with --resume {folder}, or name another with --out")
    if folder.exists():
        raise OutputExists(f"{folder} exists already and holds no run; name another with --out, or remove it")
    write_json(Paths(folder).run, run)


def prepare(settings: SimulationSettings, folder: Path, display: Display) -> None:
    """Make or read the data, decode it once and divide it; a run that has that goes on at once."""
    if Paths(folder).parts.exists():
        return
    root = data_root(settings, display)
    clips = run_clips(settings, root, recorded(read_json(Paths(folder).run)), display)
    clips.verify()  # the record names their hash, and nobody else reads them whole
    if clips.skipped:
        first = clips.skipped[0]
        display.say(
            f"[yellow]{len(clips.skipped)} sequences cannot be used and are skipped, the first: "
            f"{escape(first.name)}: {escape(first.reason)}[/yellow]"
        )
    parts, division = make_parts(settings, clips.records), divide_subjects(settings, clips.records)
    if overlap := subject_overlap(settings, clips.records):
        display.say(
            f"[yellow]{overlap.subjects_both} of the {overlap.subjects_testing} test subjects are in training too, and "
            f"{overlap.sequences_testing_of_seen_subjects} of the {overlap.sequences_testing} test sequences are theirs"
            f"; {overlap.subjects_untrained} test subjects have no training sequence.[/yellow]"
        )
    if settings.base not in ("train", "scratch"):
        untouched = read_card(Path(settings.base)).trained_on.get("test_sha256")
        if untouched != parts.test_sha256:
            what = "with other test clips" if untouched else "by a run that its card does not name"
            display.say(
                f"[yellow]The base was trained {what}: it may have seen these, and then nothing here speaks of unseen "
                "people. --split FILE divides as another run did (its fold.json).[/yellow]"
            )
    clients = {record.subject for record in clips.records if record.name in set(parts.clients)}
    if not clients:
        raise TooFewSubjects("no subject is left to be a client; use more subjects")
    cohort_size(settings.cohort, len(clients))
    write_json(Paths(folder).run, read_json(Paths(folder).run) | describe_data(settings, root, clips, parts))
    if division:
        write_split(Paths(folder).fold, division)
    parts.write(Paths(folder).parts)


def run(folder: Path, display: Display) -> dict[str, Any]:
    """Everything after `prepare`, from wherever it was left; returns the summary that was written."""
    started = time.monotonic()
    one_thread()
    scene = open_scene(folder)
    crew = Crew(scene.settings.processes, display)
    try:
        base = [] if scene.paths.base.exists() else [crew.start("base model", train_base, folder)]
        running = _start_all_data(crew, folder)  # needs no base: it fills the workers meanwhile
        for future in base:
            future.result()
        if len(scene.settings.rates) > 1:
            _tune(crew, folder, display)
        running += _start_baselines(crew, folder, "test")
        run_rounds(crew, folder, display)
        for future in running:
            future.result()
        _evaluate(crew, folder)
    finally:
        crew.close()
    if len(scene.settings.rates) == 1:
        record(folder, {scene.settings.rates[0]: folder})
    summary = write_results(folder, time.monotonic() - started)
    done = {"base_sha256": file_sha256(scene.paths.base), "finished": utc_text()}
    write_json(scene.paths.run, read_json(scene.paths.run) | done)
    return summary


def wants_baselines(settings: SimulationSettings) -> bool:
    """Whether the baselines run: as asked, or because the preset is cheap, however the settings call it."""
    return settings.baselines == "on" or (settings.baselines == "auto" and settings.preset in CHEAP_PRESETS)


def _start_all_data(crew: Crew, folder: Path) -> list[Future[None]]:
    scene = open_scene(folder)
    if not wants_baselines(scene.settings) or scene.paths.arm("all_data").exists():
        return []
    return [crew.start("all data in one place", train_all_data, folder)]


def _tune(crew: Crew, folder: Path, display: Display) -> None:
    """Try every learning rate of the grid and choose each arm's; a run that has chosen goes on at once."""
    if read_json(Paths(folder).run)["tuning"]["arms"]:
        return
    rates = open_scene(folder).settings.rates
    trials = {rate: begin_trial(folder, rate) for rate in rates}
    for number, (rate, trial) in enumerate(trials.items(), 1):
        name = f"{number}/{len(rates)}"
        display.say(f"Trial {name}: learning rate {rate:g} for every arm, scored on the validation subjects")
        with display.within(name):
            running = _start_baselines(crew, trial, "validation")
            try:
                run_rounds(crew, trial, display)
            except RoundFailed as fault:  # a rate at which training diverges is a trial that is lost
                display.say(f"[yellow]Trial {name}: federated training failed: {escape(str(fault))}[/yellow]")
            for future in running:
                future.result()
            last = f"round-{open_scene(trial).settings.rounds}"
            paths = {arm: Paths(trial).arm(arm) for arm in CENTRALISED} | {last: published(trial).get(last)}
            jobs = [(model, "validation", path) for model, path in paths.items() if path and path.exists()]
            evaluate_all(crew, trial, "evaluate on validation", jobs)
    record(folder, trials)


def _start_baselines(crew: Crew, folder: Path, part: str) -> list[Future[None]]:
    """Start what needs the base and not the rounds; each client alone is evaluated on the part."""
    scene = open_scene(folder)
    if not wants_baselines(scene.settings):
        return []
    jobs = [
        crew.start(f"{arm.replace('-', ' ')} (upper line)", train_centralised, folder, arm)
        for arm in CENTRALISED
        if not scene.paths.arm(arm).exists()
    ]
    alone = [
        (evaluate_local, subject, part)
        for subject in scene.subjects("clients")
        if not scene.paths.predictions(f"local-{subject}", part).exists()
    ]
    return jobs + (crew.start_each("each client alone", alone, folder) if alone else [])


def run_rounds(crew: Crew, folder: Path, display: Display) -> None:
    """Every round of a prepared run that is not published yet. Raises RoundFailed."""
    scene = open_scene(folder)
    if scene.settings.engine == "ray":
        run_on_flower(folder, display.phase("federated rounds"))
        return
    nodes = [{"partition-id": partition} for partition in range(len(scene.subjects("clients")))]
    with closing(LocalGrid(CLIENT_APP, nodes, {"run-folder": str(folder)}, crew.pool)) as grid:
        coordinate(grid, folder, _watcher(scene.settings.rounds, display), poll=LOCAL_POLL)


def _watcher(rounds: int, display: Display) -> Callable[[Event], None]:
    report = display.phase("federated rounds")
    heard = 0
    cohort = 0

    def watch(event: Event) -> None:
        nonlocal heard, cohort
        match event:
            case RoundOpened(number, cohort, waiting):
                heard = cohort - waiting
                report(number - 1, rounds, f"{heard}/{cohort} clients")
            case ReplyJudged(number, client, verdict):
                heard += 1
                report(number - 1, rounds, f"{heard}/{cohort} clients")
                if isinstance(verdict, Rejected):
                    display.say(f"[yellow]round {number}: {client} rejected: {escape(verdict.reason)}[/yellow]")
            case RoundEnded(number, sha256):
                report(number if sha256 else number - 1, rounds, "" if sha256 else "abandoned")

    return watch


def _evaluate(crew: Crew, folder: Path) -> None:
    """Predictions of rounds' models on validation (CURVE_POINTS of them), and of every arm's on validation and test."""
    scene = open_scene(folder)
    paths = published(folder)
    arms = {arm: scene.paths.arm(arm) for arm in ("base", *CENTRALISED, "all_data") if scene.paths.arm(arm).exists()}
    last = f"round-{scene.settings.rounds}"
    step = math.ceil(len(paths) / CURVE_POINTS)
    curve = {name: path for number, (name, path) in enumerate(paths.items(), 1) if number % step == 0 or name == last}
    choosing = [(name, "validation", path) for name, path in {**arms, **curve}.items()]
    evaluate_all(crew, folder, "evaluate on validation", choosing)
    arms = {arm: path for arm, path in arms.items() if arm not in CENTRALISED or arm == choose_centralised(folder)}
    evaluate_all(crew, folder, "evaluate on test", [(n, "test", p) for n, p in {**arms, last: paths[last]}.items()])


def published(folder: Path) -> dict[str, Path]:
    """The model of every round, in their order, by the name of its predictions."""
    rows = [row for row in open_registry(folder).rounds() if row.state == PUBLISHED]
    return {f"round-{row.number}": Paths(folder).models / f"{row.published_sha256}.safetensors" for row in rows}


def evaluate_all(crew: Crew, folder: Path, phase: str, wanted: list[tuple[str, str, Path]]) -> None:
    """Predictions of models (name, part, file), those that are not there yet."""
    paths = Paths(folder)
    jobs = [(evaluate_model, *job) for job in wanted if not paths.predictions(job[0], job[1]).exists()]
    for future in crew.start_each(phase, jobs, folder) if jobs else []:
        future.result()
