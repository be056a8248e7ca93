"""Models that fit one wearer, on that wearer's later sessions: the personalisation study's command.

Synthetic wearers with six dated sessions each: the fleet learns from the first four, every client's own model is tested
on the last two.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mcoe_model.files import write_json
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.metrics import paired_difference
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import copy_weights, load_model
from mcoe_model.networks import Network, picture_encoder
from mcoe_model.streams import stream
from mcoe_model.workers import one_thread
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.experiment import published, run_rounds
from simulations.local_methods.personal import personal_tensors
from simulations.personalise import use_mixture_weights, with_class_priors
from simulations.scene import Paths, open_scene
from simulations.settings import SimulationSettings
from simulations.tables import write_csv, write_for_people
from simulations.variants import begin_study, begin_variant, run_base

#: Federated runs: what each changes. Each model that fits a wearer comes from one of them.
RUNS: dict[str, dict[str, Any]] = {
    "global": {},
    "personal-router": {"local_method": "personal-router"},
    "personal-experts": {"local_method": "personal-experts"},
}
#: Epochs of training the fleet's model further on the wearer's own clips.
FURTHER_EPOCHS = 5
REFERENCE = "global model"
#: A wearer is harmed when the 95 % interval of the difference on their clips goes below this.
HARM = -0.03
#: Settings that this study decides.
DECIDED = (
    *("data", "design", "sequences", "train", "batch_norm", "grid", "fold"),
    *("baselines", "partition", "alpha", "local_method"),
)
EXAMPLES = """
Examples:

  python simulations/compare_personal.py --subjects 20 --folds 5 --tested 0 1 2
"""

Floats = NDArray[np.float64]


def main(arguments: list[str] | None = None) -> None:
    """Federate with and without personal parts, fit the models to each client, and test them on later sessions."""
    parser = make_parser("compare_personal.py", __doc__ or "", EXAMPLES, leave_out=DECIDED)
    parser.add_argument("--tested", type=int, nargs="+", help="folds to run, pooled [0]")
    request = read_request(parser, arguments, own={"tested": [0]})
    if request is None:
        return
    settings = replace(request.settings, design="wearable", sequences=0, train="head")
    display = Display(Console(stderr=request.as_json))
    if not request.resumed:
        begin_study(request.settings, request.folder, request.own)
    one_thread()
    found: dict[str, list[tuple[list[str], Floats]]] = {}
    with display.live():
        crew = Crew(settings.processes, display)
        try:
            for fold in request.own["tested"]:
                within = request.folder / f"fold-{fold}"
                for client, models in run_fold(replace(settings, fold=str(fold)), within, crew, display).items():
                    for model, correct in models.items():
                        found.setdefault(model, []).append(([f"{fold}/{client}"] * len(correct), correct))
        finally:
            crew.close()
    rows = _rows(found)
    summary = {"folds": request.own["tested"], "compared_with": REFERENCE, "models": rows}
    write_json(request.folder / "summary.json", summary)
    write_csv(request.folder / "models.csv", rows)
    write_for_people(request.folder / "models", rows)
    display.console.print(_table(rows))
    if request.as_json:
        print(json.dumps(summary))


def run_fold(settings: SimulationSettings, folder: Path, crew: Crew, display: Display) -> dict[str, dict[str, Floats]]:
    """Client -> model -> (n,) how often each clip of the later sessions is recognised."""
    with display.within(f"fold {settings.fold},"):
        run_base(settings, folder / "base", crew, display)
    for name, changed in RUNS.items():
        if not Paths(folder / name).run.exists():
            begin_variant(folder / "base", folder / name, **changed)
        with display.within(f"fold {settings.fold}, {name},"):
            run_rounds(crew, folder / name, display)
    clients = open_scene(folder / "base").subjects("clients")
    jobs = {client: crew.pool.submit(fit_and_test, folder, client) for client in clients}
    return {client: job.result() for client, job in jobs.items()}


def fit_and_test(folder: Path, client: str) -> dict[str, Floats]:
    """How often each clip of a client's later sessions is recognised by each model: (n,)."""
    one_thread()
    scene = open_scene(folder / "base")
    model, card = load_model(scene.paths.base)
    own, later = (scene.evaluation_samples(model, card, scene.indices(part, client)) for part in ("clients", "later"))
    found = {"base": _correct(model, later)}
    last = f"round-{scene.settings.rounds}"
    path = published(folder / "global")[last]
    model, _ = load_model(path)
    said = evaluate(model, later)
    found[REFERENCE] = _of(said.predicted(), later)
    found["class priors"] = _of(with_class_priors(model, own, said).predicted(), later)
    use_mixture_weights(picture_encoder(model), own)
    found["mixture weights"] = _correct(model, later)
    model, _ = load_model(path)
    recipe = replace(scene.settings.client_recipe, epochs=FURTHER_EPOCHS)
    fine_tune(model, own, recipe, train_mode="head", keys=(scene.settings.seed, "further", client))
    found["trained further"] = _correct(model, later)
    for name in ("personal-router", "personal-experts"):
        model, _ = load_model(published(folder / name)[last])
        copy_weights(model, personal_tensors(open_scene(folder / name), client, scene.settings.rounds + 1))
        found[name.replace("-", " ")] = _correct(model, later)
    return found


def _correct(model: Network, clips: Samples) -> Floats:
    return _of(evaluate(model, clips).predicted(), clips)


def _of(predicted: Floats, clips: Samples) -> Floats:
    right: Floats = predicted[np.arange(len(clips.labels)), clips.labels]
    return right


def harmed(differences: Floats, clients: list[str]) -> tuple[float, float]:
    """The share of clients who are harmed, and the same if nothing had changed on average.

    Intervals are of a client's mean over clips, normal. For the second, every clip's difference is given a random sign
    (1000 times).
    """
    who = np.unique(clients)
    signs = stream(0, "harm").choice([-1.0, 1.0], size=(1001, len(differences)))
    signs[0] = 1.0
    low = []
    for client in who:
        own = signs[:, np.asarray(clients) == client] * differences[np.asarray(clients) == client]  # (1001, n)
        low.append(own.mean(axis=1) - 1.96 * own.std(axis=1, ddof=1) / np.sqrt(own.shape[1]))
    share = (np.stack(low) < HARM).mean(axis=0)  # (1001,)
    return float(share[0]), float(share[1:].mean())


def _rows(found: dict[str, list[tuple[list[str], Floats]]]) -> list[dict[str, Any]]:
    clients = [client for named, _ in found[REFERENCE] for client in named]
    correct = {model: np.concatenate([values for _, values in parts]) for model, parts in found.items()}
    rows = []
    for model, values in correct.items():
        apart = paired_difference(values[None], correct[REFERENCE][None], clients, seed=0)
        by_client = [values[np.asarray(clients) == client].mean() for client in np.unique(clients)]
        share, by_chance = harmed(values - correct[REFERENCE], clients)
        changed = model != REFERENCE
        rows.append(
            {
                "model": model,
                "war": float(values.mean()),
                "worst client": float(min(by_client)),
                "difference": apart.estimate if changed else None,
                "low": apart.low if changed else None,
                "high": apart.high if changed else None,
                "harmed": share if changed else None,
                "harmed by chance": by_chance if changed else None,
                "clients": len(by_client),
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{rows[0]['clients']} clients on their last two sessions; differences to the {REFERENCE}")
    for column in ("", "WAR %", "worst client %", "difference, points", "harmed % (by chance)"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        apart, harm = "", ""
        if row["difference"] is not None:
            values = (100 * row[key] for key in ("difference", "low", "high"))
            apart = "{:+.1f} ({:+.1f} to {:+.1f})".format(*values)
            harm = f"{100 * row['harmed']:.0f} ({100 * row['harmed by chance']:.0f})"
        table.add_row(row["model"], f"{100 * row['war']:.1f}", f"{100 * row['worst client']:.1f}", apart, harm)
    return table


if __name__ == "__main__":
    command(main)
