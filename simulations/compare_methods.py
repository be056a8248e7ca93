"""Federated methods side by side, each from the same base on the same clients: the comparison's command.

The head is trained, as on wearables.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mcoe_model.files import write_json
from mcoe_model.learning.metrics import paired_difference, recovered_gain
from mcoe_model.workers import one_thread
from simulations.answers import INFORMATIVE_GAIN, Answers, answers_of, choose_centralised, pool
from simulations.arms import CENTRALISED
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.coordination import open_registry
from simulations.scene import open_scene
from simulations.settings import SimulationSettings
from simulations.tables import write_csv, write_for_people
from simulations.variants import begin_study, run_base, run_variant

#: Each method, or way in which clients differ and take part: the settings that it changes. All others are compared with
#: the first one.
METHODS: dict[str, dict[str, Any]] = {
    "weighted mean": {},
    "expert-weighted mean": {"rule": "expert-weighted-mean"},
    "routing consistency": {"rule": "routing-consistency"},
    "router damped": {"router": "damped"},
    "router kept": {"router": "kept"},
    "no balance loss": {"balance": 0.0},
    "balance loss 0.1": {"balance": 0.1},
    "FedProx 0.01": {"local_method": "fedprox", "proximal": 0.01},
    "FedProx 0.1": {"local_method": "fedprox", "proximal": 0.1},
    "FedProx 1": {"local_method": "fedprox", "proximal": 1.0},
    "SCAFFOLD": {"local_method": "scaffold"},
    "personal router": {"local_method": "personal-router"},
    "personal experts": {"local_method": "personal-experts"},
    "clients iid": {"partition": "iid"},
    "label skew 0.3": {"partition": "label-skew", "alpha": 0.3},
    "label skew 0.1": {"partition": "label-skew", "alpha": 0.1},
    "label skew 0.1, FedProx 0.1": {
        "partition": "label-skew", "alpha": 0.1, "local_method": "fedprox", "proximal": 0.1,
    },
    "label skew 0.1, SCAFFOLD": {"partition": "label-skew", "alpha": 0.1, "local_method": "scaffold"},
    "a tenth of the clients": {"cohort": "0.1"},
}
#: Fewer seeds than these are exploratory.
CONFIRMATORY_SEEDS = 10
REFERENCE = next(iter(METHODS))
#: Settings that this study decides, or that it has no use for.
DECIDED = ("train", "seed", "grid", "fold", "baselines", "partition", "alpha", "local_method", "proximal")
EXAMPLES = """
Examples:

  python simulations/compare_methods.py --seeds 0 1 2                      # every method, exploratory

  python simulations/compare_methods.py --methods "label skew 0.1" "label skew 0.1, SCAFFOLD"
"""


def main(arguments: list[str] | None = None) -> None:
    """Run every method from one base for each seed, and say how they differ on people nobody has learned from."""
    parser = make_parser("compare_methods.py", __doc__ or "", EXAMPLES, leave_out=DECIDED)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run each, pooled [0]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="NAME",
                        help=f"beside the first, some of: {', '.join(METHODS)} [all]")  # fmt: skip
    request = read_request(parser, arguments, own={"seeds": [0], "methods": list(METHODS)})
    if request is None:
        return
    seeds, methods = request.own["seeds"], [name for name in METHODS if name in (REFERENCE, *request.own["methods"])]
    settings = replace(request.settings, train="head")
    display = Display(Console(stderr=request.as_json))
    if not request.resumed:
        begin_study(settings, request.folder, request.own)
    run(settings, request.folder, seeds, methods, display)
    summary = summarise(request.folder, settings, seeds, methods)
    write_json(request.folder / "summary.json", summary)
    write_csv(request.folder / "methods.csv", summary["methods"])
    write_for_people(request.folder / "methods", summary["methods"])
    display.console.print(_table(summary))
    if not summary["informative"]:
        display.console.print("[yellow]Not informative: centralised training gains less than 5 points over the base, "
                              "or that is not resolved. Compare nothing here.[/yellow]")  # fmt: skip
    if request.as_json:
        print(json.dumps(summary))


def run(settings: SimulationSettings, folder: Path, seeds: list[int], methods: list[str], display: Display) -> None:
    """Every method's rounds, from one base for each seed. What is there already is not done again."""
    one_thread()
    with display.live():
        crew = Crew(settings.processes, display)
        try:
            for seed in seeds:
                within = folder / f"seed-{seed}"
                with display.within(f"seed {seed},"):
                    run_base(replace(settings, seed=seed), within / "base", crew, display)
                for method in methods:
                    with display.within(f"seed {seed}, {method},"):
                        run_variant(within / "base", within / _slug(method), METHODS[method], crew, display)
        finally:
            crew.close()


def summarise(folder: Path, settings: SimulationSettings, seeds: list[int], methods: list[str]) -> dict[str, Any]:
    """Every method on the test subjects of all seeds together: measures, and paired differences to the first one."""
    base, upper = [], []
    for seed in seeds:
        scene = open_scene(folder / f"seed-{seed}" / "base")
        base.append(answers_of(scene, ["base"], "test"))
        upper.append(answers_of(scene, [choose_centralised(scene.paths.folder) or CENTRALISED[0]], "test"))
    last = f"round-{settings.rounds}"
    said = {"base": _pooled(base, seeds), "upper line": _pooled(upper, seeds)}
    for method in methods:
        scenes = [open_scene(_within(folder, seed, method)) for seed in seeds]
        said[method] = _pooled([answers_of(scene, [last], "test") for scene in scenes], seeds)
    gained = _difference(said["upper line"], said["base"])
    rows = []
    for method, answers in said.items():
        scored, other = answers.score(), _difference(answers, said[REFERENCE]) if method != REFERENCE else None
        rows.append(
            {
                "method": method,
                "war": scored.war,
                "uar": scored.uar,
                "worst_tenth": scored.worst_tenth,
                "difference": other["estimate"] if other else None,
                "low": other["low"] if other else None,
                "high": other["high"] if other else None,
                "recovered_gain": recovered_gain(said["base"].score().war, scored.war, said["upper line"].score().war)
                if method in methods
                else None,
                "megabytes": f"{_megabytes(folder, seeds, method):.1f}" if method in methods else None,
            }
        )
    return {
        "data": settings.data or "synthetic",
        "seeds": seeds,
        "exploratory": len(seeds) < CONFIRMATORY_SEEDS,
        "compared_with": REFERENCE,
        "upper_minus_base": gained,
        "informative": bool(gained["estimate"] >= INFORMATIVE_GAIN and gained["low"] > 0),
        "methods": rows,
    }


def _pooled(answers: list[Answers], seeds: list[int]) -> Answers:
    """The answers of all seeds' runs, whose subjects are other people."""
    named = [
        replace(one, subjects=tuple(f"{seed}/{subject}" for subject in one.subjects))
        for seed, one in zip(seeds, answers, strict=True)
    ]
    return pool(named)


def _difference(arm: Answers, reference: Answers) -> dict[str, Any]:
    return paired_difference(arm.correct()[None], reference.correct()[None], arm.subjects, seed=0)._asdict()


def _megabytes(folder: Path, seeds: list[int], method: str) -> float:
    """What the messages of one run hold in both directions, on average."""
    registries = [open_registry(_within(folder, seed, method)) for seed in seeds]
    replies = [reply for registry in registries for row in registry.rounds() for reply in registry.replies(row.id)]
    return sum(reply.bytes_up + reply.bytes_down for reply in replies) / len(seeds) / 1e6


def _within(folder: Path, seed: int, method: str) -> Path:
    return folder / f"seed-{seed}" / _slug(method)


def _slug(method: str) -> str:
    return method.lower().replace(",", "").replace(" ", "-")


def _table(summary: dict[str, Any]) -> Table:
    table = Table(title=f"seeds {', '.join(map(str, summary['seeds']))}; differences to {REFERENCE}, 95 % intervals")
    for column in ("", "WAR %", "worst tenth %", "difference, points", "recovered gain", "MB"):
        table.add_column(column, justify="left" if not column else "right")
    for row in summary["methods"]:
        apart = "" if row["difference"] is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(
            *(100 * row[key] for key in ("difference", "low", "high"))
        )  # fmt: skip
        gain, worst = row["recovered_gain"], row["worst_tenth"]
        table.add_row(
            row["method"],
            f"{100 * row['war']:.1f}",
            "-" if worst is None else f"{100 * worst:.1f}",
            apart,
            "-" if gain is None else f"{gain:.2f}",
            row["megabytes"] or "-",
        )
    return table


if __name__ == "__main__":
    command(main)
