"""What the local engine costs: its wall time against a bare loop over the clients that does the same training.

    python benchmarks/local_engine.py [--model mcoe-tiny] [--local-epochs 1 5] [--rounds 8] [--pairs 3] [--memory]
                                      [--json]

Both train the same model on the same synthetic clips of every client, with one process and one thread for training, in
turn within one run; the ratio is taken pair by pair. The bare loop copies weights, fine-tunes, and keeps a running mean
of the updates; what the engine adds is the same for every update, so it shows most when clients train briefly:
--local-epochs names the lengths to compare (1: the quick simulation's own, a tenth of a second on 14 clips), and with
--model mcoe-edge the wearable's own network is what trains. The engine does the same through Flower's messages,
acceptance, the spool and the registry on disk, and judges in the server's process while the worker trains the next
client. With --memory the engine runs in fresh processes with more and more clients over the same data: the peak of the
memory that server and worker own (anonymous pages; mapped pictures belong to the page cache) is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.weights import copy_weights, load_model, tensors_of
from mcoe_model.model_file import read_model
from mcoe_model.workers import one_thread, spawn_pool
from simulations.arms import train_base
from simulations.console import Display
from simulations.coordination import coordinate
from simulations.experiment import CLIENT_APP, begin, prepare
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.scene import open_scene
from simulations.settings import SimulationSettings

#: Clients of the memory comparison.
FLEETS = (8, 32, 128)


def run_engine(folder: Path, pool: ProcessPoolExecutor) -> float:
    """The rounds of the run in ``folder`` through the engine with the pool's one worker; seconds."""
    scene = open_scene(folder)
    nodes = [{"partition-id": partition} for partition in range(len(scene.subjects("clients")))]
    started = time.perf_counter()
    with closing(LocalGrid(CLIENT_APP, nodes, {"run-folder": str(folder)}, pool)) as grid:
        coordinate(grid, folder, lambda event: None, poll=LOCAL_POLL)
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


def prepared(folder: Path, settings: SimulationSettings) -> Path:
    """A run that is ready for its rounds."""
    begin(settings, folder)
    prepare(settings, folder, Display(Console(quiet=True)))
    train_base(folder)
    return folder


def compare_time(model: str, local_epochs: int, rounds: int, pairs: int) -> dict[str, float]:
    """Median ratio of engine to bare loop over pairs run in turn; the first pair warms up caches."""
    ratios, engine, bare = [], [], []
    settings = SimulationSettings(model=model, local_epochs=local_epochs, rounds=rounds, base_epochs=1, workers=1)
    with tempfile.TemporaryDirectory() as scratch, spawn_pool(1) as pool:
        for pair in range(pairs + 1):
            folder = prepared(Path(scratch) / str(pair), settings)
            b, e = run_bare_loop(folder), run_engine(folder, pool)
            if pair:
                ratios.append(e / b)
                engine.append(e)
                bare.append(b)
    found = {
        "engine_s": statistics.median(engine),
        "bare_loop_s": statistics.median(bare),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
    return {f"{name}_{local_epochs}_epochs": value for name, value in found.items()}


def compare_memory() -> dict[str, float]:
    """Peaks [MB] of server and worker for each size of FLEETS, and largest fleet over smallest."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for clients in FLEETS:
            folder = prepared(Path(scratch) / str(clients), SimulationSettings(rounds=2, base_epochs=1, workers=1))
            command = [sys.executable, __file__, "--peak-of", str(folder), "--clients", str(clients)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found |= {f"{part}_mb_{clients}_clients": mb for part, mb in json.loads(done.stdout).items()}
    for part in ("server", "worker"):
        found[f"{part}_ratio"] = found[f"{part}_mb_{FLEETS[-1]}_clients"] / found[f"{part}_mb_{FLEETS[0]}_clients"]
    return found


def peak_memory(folder: Path, clients: int) -> dict[str, float]:
    """Peak anonymous memory [MB] of this process and of its worker while the engine runs."""
    with spawn_pool(1) as pool:
        pids = {"server": os.getpid(), "worker": pool.submit(os.getpid).result()}
        peaks = dict.fromkeys(pids, 0.0)
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(0.005):
                for part, pid in pids.items():
                    peaks[part] = max(peaks[part], anonymous_mb(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        nodes = [{"partition-id": partition} for partition in range(clients)]
        with closing(LocalGrid("fleet_app:client_app", nodes, {"run-folder": str(folder)}, pool)) as grid:
            coordinate(grid, folder, lambda event: None, poll=LOCAL_POLL)
        stopped.set()
        watcher.join()
    return peaks


def anonymous_mb(pid: int) -> float:
    """Resident anonymous memory of a process [MB]."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("this kernel does not tell RssAnon")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mcoe-tiny", help="preset")
    parser.add_argument("--local-epochs", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    if asked.peak_of:
        print(json.dumps(peak_memory(asked.peak_of, asked.clients)))
        return
    found = compare_memory() if asked.memory else {}
    for local_epochs in asked.local_epochs if not asked.memory else ():
        found |= compare_time(asked.model, local_epochs, asked.rounds, asked.pairs)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:26} {value:10.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
