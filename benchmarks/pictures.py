"""What it takes to make pictures of a stream: seconds of one core's time for each second of events and frames.

    python benchmarks/pictures.py [--mega-events 1 5 12] [--seconds 3] [--json]

Events all over the sensor, in portions of 10,000 as a camera delivers them, and 30 frames a second, through the pairing
that live recognition and clips use. Below 1 a core keeps up. Beside it stands the plainest way to count events,
`numpy.add.at` over the same portions without frames, windows or geometry.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT, PERIOD_US, Frame, Pairing
from mcoe_model.data.geometry import SENSOR, Geometry

PORTION = 10_000
WIDTH, HEIGHT = SENSOR


def stream(events: int, seconds: float) -> NDArray[np.void]:
    """So many events at random places, in the order of their times."""
    random = np.random.default_rng(0)
    made = np.zeros(events, EVENT)
    made["timestamp"] = np.sort(random.integers(0, round(1e6 * seconds), events))
    made["x"], made["y"] = random.integers(0, WIDTH, events), random.integers(0, HEIGHT, events)
    made["polarity"] = random.integers(0, 2, events)
    return made


def paired(events: NDArray[np.void], seconds: float) -> float:
    """Seconds of processor time until all pairs are made."""
    frame, pairing, pairs = np.zeros((HEIGHT, WIDTH), np.uint8), Pairing(Geometry()), 0
    ends = iter(range(PERIOD_US, round(1e6 * seconds), PERIOD_US))
    due = next(ends)
    started = time.process_time()
    for first in range(0, len(events), PORTION):
        portion = events[first : first + PORTION]
        while due <= portion["timestamp"][-1]:
            pairs += len(pairing.add_frame(Frame(due - 5_000, 5_000, frame)))
            due = next(ends, 1 << 62)
        pairs += len(pairing.add_events(portion))
    used = time.process_time() - started
    assert pairs >= 29 * seconds - 2, pairs
    return used


def plainly(events: NDArray[np.void]) -> float:
    """Seconds of processor time of the plainest count."""
    counts = np.zeros((2, HEIGHT, WIDTH), np.int64)
    started = time.process_time()
    for first in range(0, len(events), PORTION):
        portion = events[first : first + PORTION]
        np.add.at(counts, (portion["polarity"].astype(int), portion["y"], portion["x"]), 1)
    return time.process_time() - started


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mega-events", type=float, nargs="+", default=[1, 5, 12], help="per second")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    for rate in asked.mega_events:
        events = stream(round(1e6 * rate * asked.seconds), asked.seconds)
        ours, plain = paired(events, asked.seconds), plainly(events)
        found[f"core_s_per_s_at_{rate:g}_mev"] = ours / asked.seconds
        found[f"plain_over_ours_at_{rate:g}_mev"] = plain / ours
    print(json.dumps(found) if asked.json else "\n".join(f"{name:28} {value:8.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
