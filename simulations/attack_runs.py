"""Every attack under every rule, and what each run said of every test clip: one file a run, kept as it ends.

    FOLDER/seed-0/base/                        data, parts and base model that all runs of a seed share
    FOLDER/seed-0/model-replacement/median.npz what a run said (`KeptRun`)

A run whose file is there is not done again, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np
from rich.console import Console

from mcoe_model.errors import NotResumable, RoundFailed
from mcoe_model.files import atomic_write, read_json
from server.aggregation import RULES
from server.aggregation.fltrust import FLTrust
from server.aggregation.rule import RuleSettings
from server.rounds import RoundEngine
from simulations.attack_engines import Trusting, Undefended
from simulations.attacks import Attack, Measure, Outcome, run_attack
from simulations.console import Crew, Display
from simulations.scene import open_scene
from simulations.settings import SIMULATED_RULES, SimulationSettings
from simulations.variants import begin_variant, run_base

#: Hostile clients, as a share of all.
SHARE = 0.2
NOBODY, UNDEFENDED, PLAIN = "nobody hostile", "undefended", "weighted-mean"
#: Poison and boost of each attack.
ATTACKS = {
    NOBODY: Attack(),
    "uniform flip": Attack("uniform-flip"),
    "targeted flip": Attack("targeted-flip"),
    "flip": Attack("flip"),
    "flip to the bound": Attack("flip", boost=math.inf),
    "model replacement": Attack("backdoor", boost=50.0),
    "backdoor to the bound": Attack("backdoor", boost=math.inf),
    "colluding backdoor": Attack("colluding-backdoor", boost=math.inf),
}
#: What stands against them: the weighted mean without a norm bound, and the product's rules.
DEFENCES = (UNDEFENDED, *SIMULATED_RULES, FLTrust.name)
ENGINES: dict[str, type[RoundEngine]] = {UNDEFENDED: Undefended, FLTrust.name: Trusting}
#: Settings that runs of one folder may differ in: the seed, and what no result depends on.
_MAY_DIFFER = {"seed": 0, "workers": 0}


@dataclass(frozen=True, eq=False)
class KeptRun:
    """A run that is done. ``does``: the attack in full, hostile clients and all."""

    attack: str
    rule: str
    seed: int
    does: str
    outcome: Outcome


def run_path(folder: Path, seed: int, attack: str, rule: str) -> Path:
    """Where a run is kept."""
    return folder / f"seed-{seed}" / attack.replace(" ", "-") / f"{rule}.npz"


def keep(folder: Path, run: KeptRun) -> None:
    """Write a run. The same run gives the same bytes."""
    about = {"attack": run.attack, "rule": run.rule, "seed": run.seed, "does": run.does}
    fields = {name: np.asarray(value) for name, value in (about | vars(run.outcome)).items()}
    with atomic_write(run_path(folder, run.seed, run.attack, run.rule)) as file:
        np.savez_compressed(file, allow_pickle=False, **fields)


def read_run(path: Path) -> KeptRun:
    """A run that was kept. Raises NotResumable for a file that holds none."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {name: value if value.ndim else value.item() for name, value in stored.items()}
        attack, rule, seed, does = (found.pop(name) for name in ("attack", "rule", "seed", "does"))
        return KeptRun(attack, rule, seed, does, Outcome(**found))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as fault:
        raise NotResumable(f"{path} holds no run ({fault}); remove it and start again") from fault


def read_runs(folder: Path) -> list[KeptRun]:
    """Every run that a folder keeps, attacks and rules in their order, then by seed. Raises as `read_run`."""
    runs = [read_run(path) for path in folder.glob("seed-*/*/*.npz") if path.parent.name != "base"]
    attacks, rules = list(ATTACKS), list(DEFENCES)
    return sorted(runs, key=lambda run: (attacks.index(run.attack), rules.index(run.rule), run.seed))


def check_folder(folder: Path, settings: SimulationSettings) -> None:
    """Raises NotResumable for a folder that keeps runs of other settings than these, whatever the seed."""
    wanted = asdict(settings) | _MAY_DIFFER
    for path in sorted(folder.glob("seed-*/base/run.json")):
        found = read_json(path)["settings"] | _MAY_DIFFER
        other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if other:
            raise NotResumable(f"{folder} holds runs with another {', '.join(other)}; name another folder with --out")


def run_seed(
    folder: Path,
    settings: SimulationSettings,
    attacks: Sequence[str],
    rules: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Do what is not kept yet of a seed's runs, all from one base. ``say`` hears of each run as it ends.

    Left out: a rule that is offered too few clients, and a run whose rounds fail. Raises NotResumable as
    `check_folder`, and for a kept run of another attack that had this name.
    """
    check_folder(folder, settings)
    base, display = folder / f"seed-{settings.seed}" / "base", Display(Console(quiet=True))
    with closing(Crew(settings.processes, display)) as crew:
        run_base(settings, base, crew, display)
        clients = len(open_scene(base).subjects("clients"))
        faulty = round(SHARE * clients)
        for name, rule in product(attacks, rules):
            attack = replace(ATTACKS[name], hostile=0 if name == NOBODY else faulty)
            known, said = run_path(folder, settings.seed, name, rule), f"seed {settings.seed}: {name}, {rule}"
            if known.exists():
                _check_same(known, attack)
            elif _worth_a_run(attack, rule, faulty, clients):
                try:
                    outcome = _attacked(base, attack, rule, faulty, crew.pool)
                except RoundFailed as fault:
                    say(f"{said}: failed: {fault}")
                    continue
                keep(folder, KeptRun(name, rule, settings.seed, str(attack), outcome))
                say(f"{said}: {_in_words(outcome)}")


def _check_same(path: Path, attack: Attack) -> None:
    found = read_run(path).does
    if found != str(attack):
        raise NotResumable(f"{path} is of {found}, not of {attack}; remove it, or name another folder with --out")


def _worth_a_run(attack: Attack, rule: str, faulty: int, clients: int) -> bool:
    """Where no update is multiplied nothing is near the bound, and `undefended` is the same as `weighted-mean`."""
    if rule == UNDEFENDED:
        return attack.boost != 1.0
    return RULES[rule].least(RuleSettings(faulty=faulty)) <= clients


def _attacked(base: Path, attack: Attack, rule: str, faulty: int, pool: ProcessPoolExecutor) -> Outcome:
    """One run from the base; nothing stays of it but its outcome."""
    with TemporaryDirectory() as made:
        variant = Path(made) / "run"
        begin_variant(base, variant, rule=PLAIN if rule in ENGINES else rule, faulty=faulty)
        return run_attack(variant, attack, pool, ENGINES.get(rule, RoundEngine))


def _in_words(outcome: Outcome) -> str:
    shares = ", ".join(f"{measure} {100 * outcome.share(measure):.1f} %" for measure in get_args(Measure))
    return f"{shares}, {outcome.rejected} of {outcome.hostile} hostile replies rejected"
