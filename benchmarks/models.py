"""What each model of the product costs: parameters, operations and time of one window.

    python benchmarks/models.py [--models mcoe-edge seen] [--windows 20] [--json]

Each preset as trained, not folded, with random weights and synthetic pictures, on one thread and with a batch of one:
parameters and their size; operations of a window, two for a multiplication and an addition, as PyTorch counts them in
convolutions and matrix products (nothing else is counted); milliseconds of a window, from normalised pictures to
logits. The models take turns, window by window. Processor time is what a busy machine leaves comparable.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mcoe_model.networks import PRESETS, Network, build
from mcoe_model.workers import one_thread


def window(model: Network) -> Callable[[], object]:
    """A call that recognises one window, the same every time."""
    random, side, sampling = torch.Generator().manual_seed(0), model.config.input_size, model.config.sampling
    frame = torch.randn(1, len(sampling.frames), side, side, generator=random)  # (B, frames, S, S)
    event = torch.randn(1, len(sampling.events), side, side, generator=random)  # (B, events, S, S)
    return lambda: model.classify(model.features(frame, event))


def measure(presets: list[str], windows: int) -> dict[str, dict[str, float]]:
    """The figures of every preset, by name."""
    rows, calls = dict[str, dict[str, float]](), dict[str, Callable[[], object]]()
    for preset in presets:
        model = build(preset, seed=0).eval()
        calls[preset] = window(model)
        with FlopCounterMode(display=False) as counter:
            calls[preset]()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        operations = 1e-9 * counter.get_total_flops()
        rows[preset] = {"parameters": parameters, "megabytes": 4e-6 * parameters, "gflop": operations}
    wall: dict[str, list[float]] = {preset: [] for preset in presets}
    processor: dict[str, list[float]] = {preset: [] for preset in presets}
    for _ in range(windows):
        for preset, call in calls.items():
            started, used = time.perf_counter(), time.process_time()
            call()
            wall[preset].append(1e3 * (time.perf_counter() - started))
            processor[preset].append(1e3 * (time.process_time() - used))
    for preset, row in rows.items():
        row |= {"ms": statistics.median(wall[preset]), "processor_ms": statistics.median(processor[preset])}
        row["least_processor_ms"] = min(processor[preset])
    return rows


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    with torch.inference_mode():
        rows = measure(asked.models, asked.windows)
    if asked.json:
        print(json.dumps(rows))
        return
    print(f"{'':14}{'parameters':>12}{'MB':>8}{'GFLOP':>8}{'ms':>8}{'processor ms':>14}{'least':>8}")
    for preset, row in rows.items():
        print(
            f"{preset:14}{row['parameters']:12,d}{row['megabytes']:8.1f}{row['gflop']:8.2f}"
            f"{row['ms']:8.1f}{row['processor_ms']:14.1f}{row['least_processor_ms']:8.1f}"
        )


if __name__ == "__main__":
    main()
