"""What router statistics tell the server of a wearer, at each level of coarseness: the leakage study's command.

The table says how far off the guessed mix of emotions is (half the sum of absolute differences, 0 to 1), how often the
most frequent emotion and the lighting are guessed right, and how both compare with a guess without seeing anything.
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

from mcoe_model.errors import SettingsError
from mcoe_model.files import write_json
from mcoe_model.learning.metrics import paired_difference
from mcoe_model.names import LIGHTINGS
from mcoe_model.workers import one_thread
from simulations import leakage
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.experiment import published, run_rounds
from simulations.scene import Paths, open_scene
from simulations.settings import SimulationSettings
from simulations.tables import write_csv
from simulations.variants import begin_study, run_base

#: Rounds that an attacker sees.
SEEN = (1, 10)
#: Settings that this study decides.
DECIDED = (
    *("seed", "grid", "fold", "baselines", "train", "batch_norm", "rounds"),
    *("partition", "alpha", "local_method"),
)
EXAMPLES = """
Examples:

  python simulations/measure_leakage.py --seeds 0 1 2
"""

Floats = NDArray[np.float64]


def main(arguments: list[str] | None = None) -> None:
    """Run rounds, let an attacker learn from people of his own, and say what he can tell of the clients."""
    parser = make_parser("measure_leakage.py", __doc__ or "", EXAMPLES, leave_out=DECIDED)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run each, pooled [0]")
    request = read_request(parser, arguments, own={"seeds": [0]})
    if request is None:
        return
    settings = replace(request.settings, train="head", rounds=max(SEEN))
    if settings.data and settings.protocol == "published":
        raise SettingsError(["--protocol published has the same people on both sides; leave it out"])
    display = Display(Console(stderr=request.as_json))
    if not request.resumed:
        begin_study(request.settings, request.folder, request.own)
    one_thread()
    found: list[dict[str, Any]] = []
    with display.live():
        crew = Crew(settings.processes, display)
        try:
            for seed in request.own["seeds"]:
                with display.within(f"seed {seed},"):
                    found.append(_attack(replace(settings, seed=seed), request.folder / f"seed-{seed}", crew, display))
        finally:
            crew.close()
    rows = _rows(found)
    summary = {"data": settings.data or "synthetic", "seeds": request.own["seeds"], "attackers": rows}
    write_json(request.folder / "summary.json", summary)
    write_csv(request.folder / "leakage.csv", rows)
    display.console.print(_table(rows))
    if request.as_json:
        print(json.dumps(summary))


def _attack(settings: SimulationSettings, folder: Path, crew: Crew, display: Display) -> dict[str, Any]:
    """Attacker -> hits and errors on every victim of one run, and whose clients those are."""
    run_base(settings, folder, crew, display)
    run_rounds(crew, folder, display)
    scene = open_scene(folder)
    models = [Paths(folder).base, *published(folder).values()][: max(SEEN)]
    shadows = leakage.make_clients(folder, leakage.SHADOWS, max(SEEN))
    victims = leakage.make_clients(folder, (leakage.VICTIMS,), max(SEEN))
    clips = sorted({int(clip) for client in (*shadows, *victims) for clip in client.clips.reshape(-1)})
    places = {clip: place for place, clip in enumerate(clips)}
    routed = [job.result() for job in [crew.pool.submit(leakage.route, folder, model, clips) for model in models]]
    labels = {clip: scene.clips.records[clip].class_index for clip in clips}
    light = {clip: LIGHTINGS.index(scene.clips.records[clip].lighting) for clip in clips}
    people = [client.subject for client in shadows]
    lighting = [np.array([light[int(one.clips[0, 0])] for one in group]) for group in (shadows, victims)]

    def judged(guessed: leakage.Guesses, rounds: int) -> dict[str, Floats]:
        mix = np.stack([client.mix(labels, rounds) for client in victims])
        off = np.abs(guessed.mix - mix).sum(axis=1) / 2
        most = mix[np.arange(len(mix)), guessed.mix.argmax(axis=1)] == mix.max(axis=1)
        hits = guessed.lighting == lighting[1]
        return {"mix_off": off, "most_frequent": most.astype(float), "lighting": hits.astype(float)}

    result: dict[str, Any] = {"subjects": [f"{settings.seed}/{client.subject}" for client in victims]}
    for rounds in SEEN:
        mixes = np.stack([client.mix(labels, rounds) for client in shadows])
        result[f"nothing, {_said(rounds)}"] = judged(leakage.guess_without(mixes, lighting[0], len(victims)), rounds)
        for name, level in leakage.LEVELS.items():
            seen = [leakage.statistics_features(group, routed[:rounds], places, level) for group in (shadows, victims)]
            guessed = leakage.guess(seen[0], mixes, lighting[0], people, seen[1])
            result[f"{name}, {_said(rounds)}"] = judged(guessed, rounds)
    jobs = [
        [crew.pool.submit(leakage.update_features, folder, models[0], group[begin : begin + leakage.CLIENTS_OF_EACH])
         for begin in range(0, len(group), leakage.CLIENTS_OF_EACH)]
        for group in (shadows, victims)
    ]  # fmt: skip
    features = [np.concatenate([job.result() for job in group]) for group in jobs]
    mixes = np.stack([client.mix(labels, 1) for client in shadows])
    guessed = leakage.guess(features[0], mixes, lighting[0], people, features[1])
    result["the update itself, 1 round"] = judged(guessed, 1)
    return result


def _said(rounds: int) -> str:
    return f"{rounds} round{'s' if rounds > 1 else ''}"


def _rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each attacker over the victims of all seeds, with its differences to who has seen nothing."""
    subjects = [subject for one in found for subject in one["subjects"]]
    rows = []
    for attacker in (name for name in found[0] if name != "subjects"):
        row: dict[str, Any] = {"attacker": attacker}
        blind = f"nothing, {attacker.rpartition(', ')[2]}"
        for measure in ("mix_off", "most_frequent", "lighting"):
            own, other = (np.concatenate([one[name][measure] for one in found])[None] for name in (attacker, blind))
            apart = paired_difference(own, other, subjects, seed=0)
            row |= {measure: float(own.mean()), f"{measure}_low": apart.low, f"{measure}_high": apart.high}
        rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="What an attacker tells of a client (95 % interval of the difference to seeing nothing)")
    for column in ("he sees", "mix off by", "most frequent emotion %", "lighting %"):
        table.add_column(column, justify="left" if column == "he sees" else "right")
    for row in rows:
        apart = {m: f"({100 * row[f'{m}_low']:+.1f} to {100 * row[f'{m}_high']:+.1f})"
                 for m in ("mix_off", "most_frequent", "lighting")}  # fmt: skip
        table.add_row(row["attacker"], *(f"{100 * row[m]:.1f} {apart[m]}" for m in apart))
    return table


if __name__ == "__main__":
    command(main)
