"""How far hostile clients get under each rule, and what the rules cost when nobody is hostile, on synthetic data.

    python benchmarks/attacks.py [--subjects 32] [--rounds 12] [--seeds 0 1 2] [--attacks NAME ...] [--rules NAME ...]
                                 [--json]

A fifth of the clients is hostile in every round (`simulations/attacks.py` says what they do). Training is the
wearables' (the head, on features of frozen backbones), rules and norm bound are the product's; `undefended` is the
weighted mean with the bound switched off in the engine and exists only here, to show what nothing stops, and only where
updates are multiplied. Mean over the seeds, and their range. *taken*: test clips of other emotions that the patch turns
into happiness; *overlooked*: clips of fear that are called neutral. Each outcome is said on standard error as it comes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from mcoe_model.workers import one_thread, spawn_pool
from server.aggregation import RULES
from server.aggregation.rule import RuleSettings
from server.rounds import RoundEngine
from simulations.arms import train_base
from simulations.attacks import Attack, Outcome, run_attack
from simulations.console import Display
from simulations.experiment import begin, prepare
from simulations.scene import open_scene
from simulations.settings import SimulationSettings
from simulations.variants import begin_variant

#: Hostile clients, as a share of all.
SHARE = 0.2
#: Poison and boost of each attack.
ATTACKS = {
    "nobody hostile": Attack(),
    "uniform flip": Attack("uniform-flip"),
    "targeted flip": Attack("targeted-flip"),
    "flip": Attack("flip"),
    "flip to the bound": Attack("flip", boost=math.inf),
    "model replacement": Attack("backdoor", boost=50.0),
    "backdoor to the bound": Attack("backdoor", boost=math.inf),
    "colluding backdoor": Attack("colluding-backdoor", boost=math.inf),
}
#: `fltrust` needs clips of the server's own, which a simulation has not.
UNDEFENDED = "undefended"
SETTINGS = {UNDEFENDED: "weighted-mean"} | {name: name for name, rule in RULES.items() if not rule.needs_reference}

Found = dict[tuple[str, str], list[Outcome]]


def run_seed(
    folder: Path, settings: SimulationSettings, attacks: list[str], rules: list[str]
) -> dict[tuple[str, str], Outcome]:
    """Every attack under every rule, from one base. A rule that is offered too few clients is left out."""
    base = folder / "base"
    begin(settings, base)
    prepare(settings, base, Display(Console(quiet=True)))
    clients = len(open_scene(base).subjects("clients"))
    hostile = round(SHARE * clients)
    found = {}
    with spawn_pool(settings.processes) as pool:
        pool.submit(train_base, base).result()
        for name in attacks:
            attack = Attack(ATTACKS[name].poison, hostile if name != "nobody hostile" else 0, ATTACKS[name].boost)
            for rule in rules:
                if rule == UNDEFENDED and attack.boost == 1.0:
                    continue  # nothing is near the bound: the same as `weighted-mean`
                if RULES[SETTINGS[rule]].least(RuleSettings(faulty=hostile)) > clients:
                    continue
                variant = folder / f"{name} {rule}"
                begin_variant(base, variant, rule=SETTINGS[rule], faulty=hostile)
                switched_off = patch.object(RoundEngine, "_norm_bound", lambda *_: None)
                with switched_off if rule == UNDEFENDED else nullcontext():
                    found[name, rule] = run_attack(variant, attack, pool)
                print(f"seed {settings.seed}: {name}, {rule}: {found[name, rule]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--base-epochs", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="ATTACK")
    parser.add_argument("--rules", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="RULE")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    found: Found = {}
    for seed in asked.seeds:
        settings = SimulationSettings(
            subjects=asked.subjects, sequences=asked.sequences, rounds=asked.rounds, base_epochs=asked.base_epochs,
            local_epochs=asked.local_epochs, train="head", schedule="constant", seed=seed, workers=asked.workers,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            said = run_seed(Path(folder), settings, asked.attacks, asked.rules)
        for key, outcome in said.items():
            found.setdefault(key, []).append(outcome)
    if asked.json:
        rows = [{"attack": a, "rule": r, "outcomes": [asdict(one) for one in many]} for (a, r), many in found.items()]
        print(json.dumps(rows))
        return
    _print(found)


def _print(found: Found) -> None:
    clients = {one.clients for outcomes in found.values() for one in outcomes}
    print(f"{' or '.join(map(str, sorted(clients)))} clients, {SHARE:.0%} of them hostile")
    print("| attack | rule | WAR % | taken % | overlooked % | rejected |\n|---|---|---:|---:|---:|---:|")
    for (attack, rule), outcomes in found.items():
        rejected = f"{sum(one.rejected for one in outcomes)}/{sum(one.hostile for one in outcomes)}"
        shares = (_range([100 * getattr(one, field) for one in outcomes]) for field in ("war", "success", "overlooked"))
        print(f"| {attack} | `{rule}` | {' | '.join(shares)} | {rejected} |")


def _range(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
