"""How far hostile clients get: accuracy under label flips, and the success of a backdoor, on synthetic data.

    python benchmarks/attacks.py [--subjects 28] [--rounds 12] [--seeds 0 1 2] [--json]

Two of ten clients are hostile in every round (`simulations/attacks.py` says what they do). Training is the wearables'
(the head, on features of frozen backbones), rules and norm bound are the product's; the arm without a bound switches
it off in the engine and exists only here, to show that the attack works where nothing stops it. Mean over the seeds,
and their range.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from mcoe_model.workers import one_thread, spawn_pool
from server.rounds import RoundEngine
from simulations.arms import train_base
from simulations.attacks import Attack, Outcome, begin_attack, run_attack
from simulations.console import Display
from simulations.experiment import begin, prepare
from simulations.settings import SimulationSettings

HOSTILE = 2
#: Each arm: the rule, the attack, and whether updates meet the norm bound.
ARMS: dict[str, tuple[str, Attack, bool]] = {
    "nobody hostile, weighted mean": ("weighted-mean", Attack(), True),
    "nobody hostile, median": ("median", Attack(), True),
    "nobody hostile, trimmed mean": ("trimmed-mean", Attack(), True),
    "flip, weighted mean": ("weighted-mean", Attack("flip", HOSTILE), True),
    "flip, median": ("median", Attack("flip", HOSTILE), True),
    "flip, trimmed mean": ("trimmed-mean", Attack("flip", HOSTILE), True),
    "flip to the bound, weighted mean": ("weighted-mean", Attack("flip", HOSTILE, math.inf), True),
    "flip to the bound, median": ("median", Attack("flip", HOSTILE, math.inf), True),
    "flip to the bound, trimmed mean": ("trimmed-mean", Attack("flip", HOSTILE, math.inf), True),
    "backdoor x 50, no bound": ("weighted-mean", Attack("backdoor", HOSTILE, 50.0), False),
    "backdoor x 50, bound": ("weighted-mean", Attack("backdoor", HOSTILE, 50.0), True),
    "backdoor x 1, weighted mean": ("weighted-mean", Attack("backdoor", HOSTILE), True),
    "backdoor to the bound, weighted mean": ("weighted-mean", Attack("backdoor", HOSTILE, math.inf), True),
    "backdoor to the bound, median": ("median", Attack("backdoor", HOSTILE, math.inf), True),
    "backdoor to the bound, trimmed mean": ("trimmed-mean", Attack("backdoor", HOSTILE, math.inf), True),
}


def run_seed(folder: Path, settings: SimulationSettings, workers: int, arms: list[str]) -> dict[str, Outcome]:
    """Every arm from one base."""
    base = folder / "base"
    begin(settings, base)
    prepare(settings, base, Display(Console(quiet=True)))
    with spawn_pool(workers) as pool:
        pool.submit(train_base, base).result()
        found = {}
        for number, name in enumerate(arms):
            rule, attack, bounded = ARMS[name]
            begin_attack(base, folder / str(number), rule=rule, faulty=HOSTILE)
            switched_off = patch.object(RoundEngine, "_norm_bound", lambda *_: None)
            with nullcontext() if bounded else switched_off:
                found[name] = run_attack(folder / str(number), attack, pool)
    return found


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=28)
    parser.add_argument("--sequences", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--base-epochs", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    found: dict[str, list[Outcome]] = {name: [] for name in asked.arms}
    for seed in asked.seeds:
        settings = SimulationSettings(
            subjects=asked.subjects, sequences=asked.sequences, rounds=asked.rounds, base_epochs=asked.base_epochs,
            local_epochs=asked.local_epochs, train="head", schedule="constant", seed=seed, workers=asked.workers,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            for name, outcome in run_seed(Path(folder), settings, asked.workers, asked.arms).items():
                found[name].append(outcome)
    if asked.json:
        print(json.dumps({name: [asdict(outcome) for outcome in outcomes] for name, outcomes in found.items()}))
        return
    print(f"{found[asked.arms[0]][0].clients} clients, {HOSTILE} of them hostile")
    print(f"{'':40} {'WAR %':>18} {'backdoor taken %':>20} {'rejected':>10}")
    for name, outcomes in found.items():
        rejected = f"{sum(one.rejected for one in outcomes)}/{sum(one.hostile for one in outcomes)}"
        war, success = (_range([100 * getattr(one, field) for one in outcomes]) for field in ("war", "success"))
        print(f"{name:40} {war:>18} {success:>20} {rejected:>10}")


def _range(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
