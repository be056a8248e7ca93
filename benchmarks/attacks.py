"""How far hostile clients get under each rule, and what the rules cost when nobody is hostile, on synthetic data.

    python benchmarks/attacks.py [--out runs/attacks] [--subjects 32] [--rounds 12] [--seeds 0 1 2]
                                 [--attacks NAME ...] [--rules NAME ...] [--tables] [--json]

A fifth of the clients is hostile in every round (`simulations/attacks.py` says what they do). Training is the
wearables' (the head, on features of frozen backbones), rules and norm bound are the product's; `undefended` is the
weighted mean without the bound and exists only here, to show what nothing stops, and only where updates are multiplied;
`fltrust` has the validation subjects' clips as the server's own. *taken*: test clips of other emotions that the patch
turns into happiness; *overlooked*: clips of fear that are called neutral.

What each run said of every test clip is kept under `--out` as the run ends, and a run that is there is not done again:
the same command goes on where it was stopped. Each outcome is said on standard error as it comes. The tables at the end
are of all runs in the folder; `--tables` makes these alone, also while another process is at work there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mcoe_model.errors import McoeError
from mcoe_model.workers import one_thread
from simulations.attack_runs import ATTACKS, DEFENCES, read_runs, run_seed
from simulations.attack_tables import tables
from simulations.settings import SimulationSettings


def main() -> None:
    """Do the runs that are not there yet, and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/attacks"), metavar="FOLDER")
    parser.add_argument("--subjects", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--base-epochs", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="ATTACK")
    parser.add_argument("--rules", nargs="+", choices=DEFENCES, default=list(DEFENCES), metavar="RULE")
    parser.add_argument("--tables", action="store_true", help="do no runs")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    folder = asked.out.absolute()
    try:
        if not asked.tables:
            _run(asked, folder)
        found = tables(read_runs(folder))
    except McoeError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)
    print(json.dumps(found.to_json()) if asked.json else found.to_text())


def _run(asked: argparse.Namespace, folder: Path) -> None:
    one_thread()
    for seed in asked.seeds:
        settings = SimulationSettings(
            subjects=asked.subjects, sequences=asked.sequences, rounds=asked.rounds, base_epochs=asked.base_epochs,
            local_epochs=asked.local_epochs, train="head", schedule="constant", seed=seed, workers=asked.workers,
        )  # fmt: skip
        run_seed(folder, settings, asked.attacks, asked.rules, lambda said: print(said, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
