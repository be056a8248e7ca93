"""What the local engine costs: its wall time against a bare loop over the clients that does the same training.

    python benchmarks/local_engine.py [--subjects 32] [--rounds 3] [--pairs 5] [--json]

Both train the same model on the same synthetic clips of every client, in one process with one thread, in turn within
one run; the ratio is taken pair by pair. The bare loop copies weights, fine-tunes, and keeps a running mean of the
updates; the engine does the same through Flower's messages, acceptance, the spool and the registry on disk. With
--memory the engine runs with 8 and with 32 clients in fresh processes and the peaks of resident memory are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.weights import copy_weights, load_model, tensors_of
from mcoe_model.model_file import read_model
from mcoe_model.workers import one_thread
from simulations.arms import train_base
from simulations.console import Display
from simulations.coordination import coordinate
from simulations.experiment import CLIENT_APP, begin, prepare
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.scene import open_scene
from simulations.settings import SimulationSettings


def run_engine(folder: Path) -> float:
    """The rounds of the run in ``folder`` through the engine; seconds."""
    scene = open_scene(folder)
    nodes = [{"partition-id": partition} for partition in range(len(scene.subjects("clients")))]
    started = time.perf_counter()
    coordinate(LocalGrid(CLIENT_APP, nodes, {"run-folder": str(folder)}), folder, lambda event: None, poll=LOCAL_POLL)
    return time.perf_counter() - started


def run_bare_loop(folder: Path) -> float:
    """The same training without engine, messages, spool or registry; seconds."""
    scene = open_scene(folder)
    started = time.perf_counter()
    tensors, _ = read_model(scene.paths.base)
    model, card = load_model(scene.paths.base)
    for number in range(1, scene.settings.rounds + 1):
        total = {name: np.zeros_like(value, np.float64) for name, value in tensors.items()}
        examples = 0
        for subject in scene.subjects("clients"):
            copy_weights(model, tensors)
            samples = scene.training_samples(model, card, scene.indices("clients", subject))
            measure(model, samples)
            keys = (scene.settings.seed, number, f"subject-{subject}")
            fine_tune(model, samples, scene.settings.client_recipe, train_mode="full", keys=keys)
            measure(model, samples)
            examples += len(samples.names)
            for name, value in tensors_of(model).items():
                total[name] += len(samples.names) * value
        tensors = {name: np.asarray(value / examples, tensors[name].dtype) for name, value in total.items()}
    return time.perf_counter() - started


def prepared(folder: Path, subjects: int, rounds: int) -> Path:
    """A run that is ready for its rounds: the quick simulation's settings but for the number of subjects and rounds."""
    settings = SimulationSettings(subjects=subjects, rounds=rounds, base_epochs=1, workers=1)
    display = Display(quiet_console())
    begin(settings, folder)
    prepare(settings, folder, display)
    train_base(folder)
    return folder


def quiet_console():  # type: ignore[no-untyped-def]
    """A console that shows nothing."""
    from rich.console import Console

    return Console(quiet=True)


def compare_time(subjects: int, rounds: int, pairs: int) -> dict[str, float]:
    """Median ratio of engine to bare loop over pairs run in turn."""
    ratios, engine, bare = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(pairs + 1):
            folder = prepared(Path(scratch) / str(pair), subjects, rounds)
            b, e = run_bare_loop(folder), run_engine(folder)
            if pair:  # the first pair warms up caches
                ratios.append(e / b)
                engine.append(e)
                bare.append(b)
    return {
        "engine_s": statistics.median(engine),
        "bare_loop_s": statistics.median(bare),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def peak_memory(subjects: int) -> float:
    """Peak resident memory [MB] of a fresh process that runs the engine with this many subjects."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak-of", str(subjects)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    if asked.peak_of:
        with tempfile.TemporaryDirectory() as scratch:
            run_engine(prepared(Path(scratch) / "run", asked.peak_of, rounds=2))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    found = compare_time(asked.subjects, asked.rounds, asked.pairs)
    if asked.memory:
        small, large = peak_memory(24), peak_memory(96)
        found |= {"peak_mb_24_subjects": small, "peak_mb_96_subjects": large, "memory_ratio": large / small}
    print(json.dumps(found) if asked.json else "\n".join(f"{name:22} {value:10.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
