"""What aggregation costs: every rule on spooled updates, side by side, and against Flower's Krum and FedMedian.

    python benchmarks/aggregation.py [--quick | --large] [--folder DIR] [--pairs 3] [--json]

Every measurement is a process of its own: seconds of `aggregate`, from the files in the spool to the next model, and
the peak of memory above what was held before, the next model included. That peak stays the same whatever the number of
updates. Flower's strategies are timed from replies that lie in memory to the aggregated record, alternating with ours;
the ratio is the median over the pairs, each of which sees the same load of the machine. Rules are measured with one
thread, pairs with one and with one for each core, as NumPy takes by itself.
Needs 2.5 GB of disk for the spool, which is removed afterwards; with `--large`, which adds 200 updates of 12 M
parameters, 9.7 GB. More than the machine's free memory can hold is read from the disk, and then timed with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedMedian, Krum
from safetensors.numpy import load_file

from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.update import TensorSpec
from server.aggregation import RULES, aggregate
from server.aggregation.rule import Contribution, RuleSettings
from server.spool import open_update, spool_path, write_update

EXPERTS, SHARED_TENSORS = 8, 12
#: Parameters of an update, and of how many updates.
FLEETS = {1_660_000: (10, 50, 200), 12_000_000: (10, 50)}
LARGE = {**FLEETS, 12_000_000: (10, 50, 200)}
QUICK = {200_000: (10, 50)}
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
#: The rule that each of Flower's strategies is compared with.
PAIRS = {"krum": Krum, "median": FedMedian}


@dataclass(frozen=True)
class Decoded:
    """What Flower's strategies read of a reply."""

    content: RecordDict

    def has_error(self) -> bool:
        return False


def specs(parameters: int) -> dict[str, TensorSpec]:
    """A head with this many parameters: three fifths shared, the rest in the experts."""
    shared = parameters * 3 // 5 // SHARED_TENSORS
    expert = (parameters - shared * SHARED_TENSORS) // EXPERTS
    sizes = {f"layer.{index}.weight": shared for index in range(SHARED_TENSORS)}
    sizes |= {f"moe.experts.{index}.weight": expert for index in range(EXPERTS)}
    return {name: TensorSpec((size,), "float32") for name, size in sizes.items()}


def write_spool(folder: Path, parameters: int, updates: int) -> None:
    """Updates that agree in part, and the server's own."""
    random = np.random.default_rng(0)
    common = {name: random.standard_normal(spec.size, np.float32) for name, spec in specs(parameters).items()}
    for update_id in [*map(update_id_of, range(updates)), "reference"]:
        own = {name: random.standard_normal(value.size, np.float32) for name, value in common.items()}
        write_update(folder, update_id, {name: common[name] + own[name] for name in common})


def spool_bytes(fleets: dict[int, tuple[int, ...]]) -> int:
    """Bytes of the largest spool, the server's own update with it."""
    return max(4 * parameters * (max(counts) + 1) for parameters, counts in fleets.items())


def update_id_of(index: int) -> str:
    """The id of an update."""
    return f"{index:032x}"


def ours(folder: Path, parameters: int, updates: int, rule: str) -> Callable[[], Any]:
    """The rule on the spool."""
    trainable = specs(parameters)
    base = {name: np.ones(spec.shape, np.float32) for name, spec in trainable.items()}
    load = RouterStatistics(10, 2, (20, *[0] * (EXPERTS - 1)), (10.0 / EXPERTS,) * EXPERTS)
    listed = [Contribution(update_id_of(index), str(index), 10, load) for index in range(updates)]
    reference = open_update(folder, "reference")
    return lambda: aggregate(base, trainable, folder, listed, RULES[rule], RuleSettings(), reference)


def flowers(folder: Path, updates: int, rule: str) -> Callable[[], Any]:
    """Flower's strategy on replies in memory."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    replies = []
    for index in range(updates):
        tensors = load_file(spool_path(folder, update_id_of(index)))
        arrays = ArrayRecord({name: Array(value) for name, value in tensors.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10})})
        replies.append(Decoded(content))
    strategy = Krum(num_malicious_nodes=1) if rule == "krum" else PAIRS[rule]()
    return lambda: strategy.aggregate_train(1, replies)


def memory_mb(field: str) -> float:
    """A field of this process's status: VmRSS, or VmHWM, its peak [MB]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"this kernel does not tell {field}")


def measure_here(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and megabytes above those held before."""
    before = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "extra_mb": memory_mb("VmHWM") - before}


def measure(whose: str, folder: Path, parameters: int, updates: int, rule: str, threads: int = 1) -> dict[str, float]:
    """The same in a fresh process with this number of threads."""
    case = json.dumps([whose, str(folder), parameters, updates, rule])
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(
        [sys.executable, __file__, "--case", case], stdout=subprocess.PIPE, check=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(
    fleets: dict[int, tuple[int, ...]], place: Path | None, pairs: int, report: Callable[[dict[str, Any]], None]
) -> None:
    """Report every rule on every fleet, then Flower's on 50 updates of the smallest size."""
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        free, needed = shutil.disk_usage(scratch).free, spool_bytes(fleets)
        if free < needed + (1 << 30):
            sys.exit(f"{needed / 1e9:.1f} GB and one to spare are needed in {scratch}, {free / 1e9:.1f} are free; "
                     "name another place with --folder")  # fmt: skip
        for parameters, counts in fleets.items():
            folder = Path(scratch) / str(parameters)
            write_spool(folder, parameters, max(counts))
            for rule in RULES:
                for updates in counts:
                    found = measure("ours", folder, parameters, updates, rule)
                    report({"rule": rule, "parameters": parameters, "updates": updates, **found})
            if parameters == min(fleets):
                for rule in PAIRS:
                    for threads in sorted({1, os.cpu_count() or 1}):
                        report(compare_with_flower(folder, parameters, rule, pairs, threads))
            for file in folder.iterdir():
                file.unlink()


def compare_with_flower(folder: Path, parameters: int, rule: str, pairs: int, threads: int) -> dict[str, Any]:
    """Flower's cost over ours on 50 updates, in alternation."""
    ratios, theirs = [], []
    for _ in range(pairs):
        our = measure("ours", folder, parameters, 50, rule, threads)
        theirs.append(measure("flower", folder, parameters, 50, rule, threads))
        ratios.append(theirs[-1]["seconds"] / our["seconds"])
    return {
        "flower": PAIRS[rule].__name__,
        "rule": rule,
        "parameters": parameters,
        "updates": 50,
        "threads": threads,
        "seconds": statistics.median(found["seconds"] for found in theirs),
        "extra_mb": statistics.median(found["extra_mb"] for found in theirs),
        "times_as_fast": statistics.median(ratios),
        "times_as_fast_min": min(ratios),
        "times_as_fast_max": max(ratios),
    }


def line(found: dict[str, Any]) -> str:
    """A measurement as a line of the table."""
    name = f"{found['flower']} (Flower)" if "flower" in found else found["rule"]
    text = f"{name:22} {found['updates']:4} x {found['parameters'] / 1e6:5.2f} M "
    text += f"{found['seconds']:8.2f} s {found['extra_mb']:8.0f} MB"
    if "flower" in found:
        spread = f"{found['times_as_fast_min']:.1f} to {found['times_as_fast_max']:.1f}"
        text += f"   {found['rule']} is {found['times_as_fast']:.1f} times as fast ({spread})"
        text += f", threads: {found['threads']}"
    return text


def main() -> None:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small updates, under a minute")
    size.add_argument("--large", action="store_true", help="200 updates of 12 M parameters, too: 9.7 GB of disk")
    parser.add_argument("--folder", type=Path, help="where the spool is written; by default the temporary folder")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.case:
        whose, folder, parameters, updates, rule = asked.case
        if whose == "ours":
            work = ours(Path(folder), parameters, updates, rule)
        else:
            work = flowers(Path(folder), updates, rule)
        print(json.dumps(measure_here(work)))
        return
    compare(
        QUICK if asked.quick else LARGE if asked.large else FLEETS,
        asked.folder,
        asked.pairs,
        lambda found: print(json.dumps(found) if asked.json else line(found), flush=True),
    )


if __name__ == "__main__":
    main()
