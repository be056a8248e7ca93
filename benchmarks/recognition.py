"""What live recognition costs: one window at a time, as trained and folded, whole and in a stream.

    python benchmarks/recognition.py [--models mcoe-edge mcoe] [--threads 2] [--windows 60] [--json]

For each preset, in turn within one run and with random weights: milliseconds of a window as trained (four pictures
encoded), folded, and folded in a stream, where only the newest pair of pictures is encoded (from the pair to the
answer; what is prepared afterwards is in the windows per second, which are what the stream sustains). With two threads
the event picture is encoded beside the frame, as `client.recognise` does it. Processor time stands beside the time on
the wall: on a machine that has other work too only the former and the ratios, which are of it, mean something.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from mcoe_model.edge import SPAN, StreamingRecogniser, fold
from mcoe_model.model_file import Normalisation
from mcoe_model.networks import MCOENet, build


@dataclass
class Times:
    """Seconds of every call, by the clock on the wall and by all of this process's threads."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def of(self, work: Callable[[], object]) -> None:
        """Time a call."""
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    def figures(self, name: str) -> dict[str, float]:
        """Medians and the 99th percentile [ms]."""
        return {
            f"{name}_ms": 1e3 * statistics.median(self.wall),
            f"{name}_p99_ms": 1e3 * float(np.quantile(self.wall, 0.99)),
            f"{name}_processor_ms": 1e3 * statistics.median(self.processor),
        }


def whole_window(model: MCOENet, frame: torch.Tensor, event: torch.Tensor) -> None:
    """One window (1, 3, 2, S, S), all four pictures encoded."""
    with torch.inference_mode():
        model(frame, event)


def measure(preset: str, windows: int, beside: Executor | None) -> dict[str, float]:
    """The figures of one preset, by name."""
    model = build(preset, seed=0).eval()
    folded, size = fold(model), model.config.input_size
    window = torch.randn(2, 1, 3, 2, size, size)
    pairs = np.random.default_rng(0).integers(0, 256, (windows + SPAN, 2, size, size), np.uint8)
    recogniser = StreamingRecogniser(folded, Normalisation(0.3, 0.2, 0.5, 0.1), beside)
    as_trained, as_folded, answer, after = Times(), Times(), Times(), Times()

    def recognise(number: int, pair: np.ndarray) -> None:
        recogniser.add(number, *pair)
        recogniser.recognise()

    for number, pair in enumerate(pairs):
        if number < SPAN:
            recognise(number, pair)
            recogniser.prepare()
            continue
        answer.of(lambda number=number, pair=pair: recognise(number, pair))  # type: ignore[misc]
        after.of(recogniser.prepare)
        as_trained.of(lambda: whole_window(model, *window))
        as_folded.of(lambda: whole_window(folded, *window))
    found = as_trained.figures("as_trained") | as_folded.figures("folded") | answer.figures("stream")
    wall, processor = (
        statistics.fmean(first) + statistics.fmean(then)
        for first, then in ((answer.wall, after.wall), (answer.processor, after.processor))
    )
    return found | {
        "sustained_windows_per_s": 1 / wall,
        "windows_per_processor_s": 1 / processor,
        "as_trained_over_folded": found["as_trained_processor_ms"] / found["folded_processor_ms"],
        "as_trained_over_stream": found["as_trained_processor_ms"] / (1e3 * processor),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mcoe-edge", "mcoe"])
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    beside = ThreadPoolExecutor(1, "beside", torch.set_num_threads, (1,)) if asked.threads > 1 else None
    found = {preset: measure(preset, asked.windows, beside) for preset in asked.models}
    if asked.json:
        print(json.dumps(found))
        return
    for preset, figures in found.items():
        print(preset)
        for name, value in figures.items():
            print(f"  {name:26} {value:10.2f}")


if __name__ == "__main__":
    main()
