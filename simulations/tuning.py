"""Which learning rate each arm takes: every arm that trains with the clients' recipe is tried on the same grid.

A trial is a folder like a run's, with one learning rate and the run's own parts and base model. It is scored on the
validation part alone; the run itself then trains each arm with its choice, and only that is ever tested.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mcoe_model.files import read_json, write_bytes, write_json
from mcoe_model.learning.metrics import Scores
from simulations.answers import choose_centralised, validation_score
from simulations.scene import Paths, open_scene
from simulations.settings import SimulationSettings

#: The arms that are trained with the clients' recipe.
TUNED = ("federated", "centralised", "local")


def begin_trial(folder: Path, rate: float) -> Path:
    """The folder of a trial of the run in ``folder``, prepared up to its base model."""
    scene = open_scene(folder)
    trial = Paths(folder / "trials" / f"lr-{rate:g}")
    if not trial.run.exists():
        settings = replace(scene.settings, lr=rate, grid="")
        write_bytes(trial.base, scene.paths.base.read_bytes())
        scene.parts.write(trial.parts)
        own = {"settings": asdict(settings), "tuning": declared(settings)}
        write_json(trial.run, read_json(scene.paths.run) | own)
    return trial.folder


def declared(settings: SimulationSettings) -> dict[str, Any]:
    """The record of tuning before any trial."""
    return {"setting": "learning rate on a client", "grid": list(settings.rates), "arms": {}}


def record(folder: Path, trials: Mapping[float, Path]) -> dict[str, Any]:
    """Write into the run's record how each trial (rate -> its folder) scored on validation, and what each arm takes.

    ``add`` is the value that would extend the grid where the best one lies at its edge. The lower rate wins a tie, and
    a trial whose training failed has no score. With a single trial there is no choice, and an arm that was not
    evaluated on validation has no score either.
    """
    grid = sorted(trials)
    scored = {rate: _scores(trials[rate]) for rate in grid}
    arms = {}
    for arm in scored[grid[0]]:
        found = {rate: scored[rate][arm] for rate in grid}
        chosen = max(grid, key=lambda rate: one.war if (one := found[rate]) else 0.0)
        arms[arm] = {
            "chosen": chosen,
            "add": value_to_add(grid, chosen),
            "trials": [
                {"lr": rate, "validation_war": one.war if one else None, "validation_uar": one.uar if one else None}
                for rate, one in found.items()
            ],
        }
    run = read_json(Paths(folder).run)
    run["tuning"] |= {"arms": arms}
    write_json(Paths(folder).run, run)
    return dict(run["tuning"])


def value_to_add(grid: Sequence[float], chosen: float) -> float | None:
    """The next value beyond the edge of an ascending grid, a step like the last one away; None within the grid."""
    if len(grid) < 2 or chosen not in (grid[0], grid[-1]):
        return None
    neighbour = grid[1] if chosen == grid[0] else grid[-2]
    return min(1.0, float(f"{chosen * chosen / neighbour:.0e}"))


def pool(tunings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The records of several folds as one: lists of what each chose, mean scores of each trial."""
    arms = {}
    for arm in tunings[0]["arms"]:
        found = [tuning["arms"][arm] for tuning in tunings]
        trials = []
        for each in zip(*(one["trials"] for one in found), strict=True):
            trial = {"lr": each[0]["lr"]}
            for key in ("validation_war", "validation_uar"):
                known = [one[key] for one in each if one[key] is not None]
                trial[key] = statistics.mean(known) if known else None
            trials.append(trial)
        arms[arm] = {key: [one[key] for one in found] for key in ("chosen", "add")} | {"trials": trials}
    return {**tunings[0], "arms": arms}


def edge_notes(tuning: Mapping[str, Any]) -> list[str]:
    """A sentence for every arm whose best value lies at the grid's edge, of one run or pooled."""
    notes = []
    for arm, found in tuning["arms"].items():
        values = found["add"] if isinstance(found["add"], list) else [found["add"]]
        beyond = [value for value in values if value is not None]
        if beyond:
            where = f" in {len(beyond)} of {len(values)} folds" if len(values) > 1 else ""
            add = " and ".join(f"{value:g}" for value in sorted(set(beyond)))
            notes.append(f"The best learning rate of the arm {arm} is at the edge of the grid{where}: add {add} to it.")
    return notes


def _scores(trial: Path) -> dict[str, Scores | None]:
    """What each arm of a trial scored on validation; an arm that was not run is absent."""
    scene = open_scene(trial)
    last = f"round-{scene.settings.rounds}"
    scores: dict[str, Scores | None] = {"federated": validation_score(trial, last)}
    form = choose_centralised(trial)
    if form:
        scores["centralised"] = validation_score(trial, form)
        alone = [f"local-{subject}" for subject in scene.subjects("clients")]
        scores["local"] = validation_score(trial, *alone)
    return scores
