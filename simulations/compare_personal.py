"""Models that fit one wearer, on that wearer's later sessions: the personalisation study's command.

Synthetic wearers with six dated sessions each, people of its own for every seed. Of a client's first four sessions one
clip in five is held out, as on a wearable, and neither the fleet nor the client's own models learn it. These are tested
on the last two sessions, as they are and after the wearable's own trial beside the global model on what was held out.

What is known of a wearer is in SEED/wearers/CLIENT.npz: a run that goes on does only what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from client.comparison import FEWEST_CLIPS
from client.lesson_book import is_held_out
from mcoe_model.data.synthetic.settings import WEARABLE_SESSION_CLIPS, WEARABLE_SESSIONS
from mcoe_model.errors import SettingsError
from mcoe_model.files import read_json, write_json
from mcoe_model.learning.evaluate import Predictions, evaluate
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import copy_weights, load_model
from mcoe_model.networks import Network, picture_encoder
from mcoe_model.streams import stream
from mcoe_model.workers import one_thread
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.continual_summary import CONFIRMATORY_SEEDS
from simulations.experiment import published, run_rounds
from simulations.local_methods.personal import personal_tensors
from simulations.parts import Parts
from simulations.personal_gains import PERSONAL, PRIORS, REFERENCE, Seeds, Wearer, table, verdicts
from simulations.personalise import use_mixture_weights, with_class_priors
from simulations.scene import Paths, Scene, open_scene
from simulations.settings import SimulationSettings
from simulations.streams import session_order
from simulations.tables import write_csv, write_for_people
from simulations.variants import begin_study, begin_variant, run_base
from simulations.words import points

#: Federated runs: what each changes. Each model that fits a wearer comes from one of them.
RUNS: dict[str, dict[str, Any]] = {
    "global": {},
    "personal-router": {"local_method": "personal-router"},
    "personal-experts": {"local_method": "personal-experts"},
}
#: Epochs of training the fleet's model further on the wearer's own clips.
FURTHER_EPOCHS = 5
#: Clips of a session: twice the design's fewest, so that enough are held out for a trial to give a verdict.
SESSION_CLIPS = 2 * WEARABLE_SESSION_CLIPS
#: Settings that this study decides.
DECIDED = (
    *("data", "design", "sequences", "train", "batch_norm", "grid", "fold", "seed"),
    *("baselines", "partition", "alpha", "local_method"),
)
EXAMPLES = """
Examples:

  python simulations/compare_personal.py --subjects 20 --seeds 0 1 2
"""


def main(arguments: list[str] | None = None) -> None:
    """Federate with and without personal parts, fit the models to each client, and test them on later sessions."""
    parser = make_parser("compare_personal.py", __doc__ or "", EXAMPLES, leave_out=DECIDED)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run each, with people of its own [0]")
    parser.add_argument("--session-clips", type=int, metavar="N", help=f"clips of a session [{SESSION_CLIPS}]")
    request = read_request(parser, arguments, own={"seeds": [0], "session_clips": SESSION_CLIPS})
    if request is None:
        return
    studied = _of_seeds(request.settings, request.own["seeds"], request.own["session_clips"])
    display = Display(Console(stderr=request.as_json))
    if not request.resumed:
        begin_study(request.settings, request.folder, request.own)
    one_thread()
    with display.live():
        crew = Crew(request.settings.processes, display)
        try:
            found = [run_seed(one, request.folder / f"seed-{one.seed}", crew, display) for one in studied]
        finally:
            crew.close()
    summary = write_results(request.folder, request.own["seeds"], found)
    display.console.print(_table(summary))
    for line in _in_words(summary):
        display.console.print(line, soft_wrap=True)
    if request.as_json:
        print(json.dumps(summary))


def _of_seeds(asked: SimulationSettings, seeds: Sequence[int], session_clips: int) -> list[SimulationSettings]:
    """The settings of each seed. Raises SettingsError."""
    faults = []
    if len(set(seeds)) < len(seeds):
        faults.append(f"--seeds must differ, since each is people of its own: {' '.join(map(str, seeds))}")
    if session_clips < WEARABLE_SESSION_CLIPS:
        faults.append(f"--session-clips must be at least {WEARABLE_SESSION_CLIPS}, not {session_clips}")
    if faults:
        raise SettingsError(faults)
    made = replace(asked, design="wearable", sequences=WEARABLE_SESSIONS * session_clips, train="head", fold="0")
    return [replace(made, seed=seed) for seed in seeds]


def run_seed(settings: SimulationSettings, folder: Path, crew: Crew, display: Display) -> list[Wearer]:
    """Federate what is not federated yet, and fit and test for each client who was not."""
    name = f"seed {settings.seed},"
    with display.within(name):
        run_base(settings, folder / "base", crew, display)
    for variant, changed in RUNS.items():
        if not Paths(folder / variant).run.exists():
            begin_variant(folder / "base", folder / variant, **changed)
        set_aside(folder / "base", folder / variant)
        with display.within(f"{name} {variant},"):
            run_rounds(crew, folder / variant, display)
    clients = open_scene(folder / "base").subjects("clients")
    jobs = [(fit_and_test, client) for client in clients if not _kept(folder, client).exists()]
    with display.within(name):
        for job in crew.start_each("fit and test", jobs, folder) if jobs else []:
            job.result()
    return [Wearer.read(_kept(folder, client)) for client in clients]


def set_aside(prepared: Path, folder: Path) -> None:
    """Take the clips that a wearable holds out from those that the clients of a run learn, before its first round."""
    scene, path = open_scene(prepared), Paths(folder).parts
    held_out = {clip for client in scene.subjects("clients") for clip in as_worn(scene, client)[1]}
    names = {scene.clips.records[clip].name for clip in held_out}
    parts = Parts.read(path)
    parts = replace(parts, clients=tuple(name for name in parts.clients if name not in names))
    parts.write(path)
    write_json(Paths(folder).run, read_json(Paths(folder).run) | {"parts_sha256": parts.sha256})


def as_worn(scene: Scene, client: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A client's clips of the earlier sessions, in record order: those that are learned, and those that never are.

    They are labelled one after the other, in an order that is drawn for each session, and held out as on a wearable.
    """
    indices = scene.indices("clients", client)
    shuffled = stream(scene.settings.seed, "labelled", client).permutation(indices).tolist()
    labelled = sorted(shuffled, key=lambda clip: session_order(scene.clips.records[clip].session))
    held_out = {clip for span, clip in enumerate(labelled) if is_held_out(span)}
    return tuple(clip for clip in indices if clip not in held_out), tuple(sorted(held_out))


def fit_and_test(folder: Path, client: str) -> None:
    """Keep what each model does for a client: on the later sessions, and on the held-out clips as a trial asks."""
    one_thread()
    scene = open_scene(folder / "base")
    model, card = load_model(scene.paths.base)
    learned, held_out = as_worn(scene, client)
    own, later, asked = (
        scene.evaluation_samples(model, card, indices)
        for indices in (learned, scene.indices("later", client), held_out)
    )
    found: dict[str, list[Predictions]] = {}
    for name, fitted in _models(folder, scene, client, own):
        found[name] = [evaluate(fitted, clips) for clips in (later, asked)]
        if name == REFERENCE:
            found[PRIORS] = [with_class_priors(fitted, own, said) for said in found[REFERENCE]]
    correct = np.stack([_correct(said) for said, _ in found.values()])
    hits = np.stack([tried_hits(said) for _, said in found.values()])
    Wearer(client, tuple(found), correct, asked.labels, hits).write(_kept(folder, client))


def _models(folder: Path, scene: Scene, client: str, own: Samples) -> Iterator[tuple[str, Network]]:
    """The base, the fleet's model and those that are fitted to a client, by name, one after the other."""
    yield "base", load_model(scene.paths.base)[0]
    last = f"round-{scene.settings.rounds}"
    path = published(folder / "global")[last]
    yield REFERENCE, load_model(path)[0]
    model = picture_encoder(load_model(path)[0])
    use_mixture_weights(model, own)
    yield "mixture weights", model
    further, _ = load_model(path)
    recipe = replace(scene.settings.client_recipe, epochs=FURTHER_EPOCHS)
    fine_tune(further, own, recipe, train_mode="head", keys=(scene.settings.seed, "further", client))
    yield "trained further", further
    for name in ("personal-router", "personal-experts"):
        parts, _ = load_model(published(folder / name)[last])
        copy_weights(parts, personal_tensors(open_scene(folder / name), client, scene.settings.rounds + 1))
        yield name.replace("-", " "), parts


def _kept(folder: Path, client: str) -> Path:
    return folder / "wearers" / f"{client}.npz"


def _correct(said: Predictions) -> NDArray[np.float64]:
    right: NDArray[np.float64] = said.predicted()[np.arange(len(said.labels)), said.labels]
    return right


def tried_hits(said: Predictions) -> NDArray[np.bool_]:
    """(N,) whether a trial finds each clip recognised: in the middle window of its sampling law."""
    ends = np.cumsum(np.bincount(said.clip))  # (N,)
    middle = (np.concatenate([[0], ends[:-1]]) + ends) // 2
    hits: NDArray[np.bool_] = said.logits[middle].argmax(axis=1) == said.labels
    return hits


def write_results(folder: Path, seeds: Sequence[int], found: Seeds) -> dict[str, Any]:
    """Write models.csv, a table for people (models.md, .tex) and summary.json; returns the summary."""
    rows = table(found)
    held_out = [len(wearer.labels) for seed in found for wearer in seed]
    summary = {
        "data": "synthetic",
        "seeds": list(seeds),
        "exploratory": len(seeds) < CONFIRMATORY_SEEDS,
        "compared_with": REFERENCE,
        "wearers": len(held_out),
        "held_out": {"fewest": min(held_out), "most": max(held_out)},
        "models": rows,
        "verdicts": {row["model"]: verdicts(row) for row in rows if row["tried"] and row["model"] in PERSONAL},
    }
    write_json(folder / "summary.json", summary)
    write_csv(folder / "models.csv", rows)
    write_for_people(folder / "models", [_for_people(row) for row in rows], _caption(summary))
    return summary


def _caption(summary: dict[str, Any]) -> str:
    fewest, most = summary["held_out"].values()
    return (
        f"Synthetic: {summary['wearers']} wearers of {len(summary['seeds'])} seeds on their last two sessions"
        f"{' (exploratory)' if summary['exploratory'] else ''}; differences in points, 95 % intervals over seeds and "
        f"wearers; {fewest} to {most} held-out clips a wearer, and a trial needs {FEWEST_CLIPS}."
    )


def _for_people(row: dict[str, Any]) -> dict[str, str]:
    """A row as it is read: rates in percent, differences in points with their intervals."""
    after = f"{row['turned_down']} turned down, {row['no_verdict']} no verdict" if row["tried"] else "-"
    return {
        "model": f"{row['model']}, after the trial" if row["tried"] else row["model"],
        "WAR %": f"{100 * row['war']:.1f}",
        "worst wearer %": f"{100 * row['worst']:.1f}",
        "mean gain": _interval(row, "gain"),
        "median gain": _interval(row, "median"),
        "to class priors": _interval(row, "to_priors"),
        "harmed % (by chance)": _by_chance(row, "harm"),
        "surely worse % (by chance)": _by_chance(row, "worse"),
        "trials": after,
    }


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    middle, low, high = (points(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{middle} ({low} to {high})"


def _by_chance(row: dict[str, Any], name: str) -> str:
    return "-" if row[name] is None else f"{100 * row[name]:.0f} ({100 * row[f'{name}_chance']:.0f})"


def _table(summary: dict[str, Any]) -> Table:
    rows = [_for_people(row) for row in summary["models"]]
    shown = Table(caption=_caption(summary))
    for column in rows[0]:
        shown.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        shown.add_row(*row.values())
    return shown


def _in_words(summary: dict[str, Any]) -> list[str]:
    """What was asked of each personal model, after the trial, and whether that is reached."""
    return [
        f"{model}: " + "; ".join(f"{asked}: [bold]{verdict}[/bold]" for asked, verdict in said.items())
        for model, said in summary["verdicts"].items()
    ]


if __name__ == "__main__":
    command(main)
