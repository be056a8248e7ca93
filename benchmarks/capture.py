"""What the camera's process takes: seconds of one core's time for each second of what the camera gives.

    python benchmarks/capture.py [--mega-events 0.2 1 5 12] [--seconds 2] [--json]

Events all over the sensor in portions of 10 ms, and 30 frames a second, as fast as they are taken: *shown* is pictures
in both rings, the whole sensor's fifteen times a second, and the last seconds remembered; *recorded* is that and a
recording in segments (LZ4) in memory, whose size per event is said beside it. Below 1 a core keeps up. All threads
count, dv-processing's too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dv_processing as dv
import numpy as np
from numpy.typing import NDArray

from client.cameras.source import Portion
from client.clock_map import CameraClock
from client.live_pictures import LivePictures
from client.recordings import Recordings
from client.remembered import Remembered
from client.ring import SHARED_MEMORY
from mcoe_model.data.events import EVENT, Frame
from mcoe_model.data.geometry import SENSOR, Geometry

PORTION_US = 10_000
WIDTH, HEIGHT = SENSOR


@dataclass(frozen=True, eq=False)
class Ready:
    """Events that are an array and a packet already, as a camera gives them."""

    array: NDArray[np.void]
    made: Any

    def __len__(self) -> int:
        return len(self.array)

    def numpy(self) -> NDArray[np.void]:
        return self.array

    def packet(self) -> Any:
        return self.made


def portions(mega_events: float, seconds: float) -> list[Portion]:
    """A stream at random places, in the order of its times."""
    random, made, framed_us = np.random.default_rng(0), [], 0
    count = round(mega_events * PORTION_US)
    image = random.integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    for start in range(0, round(1e6 * seconds), PORTION_US):
        events = np.zeros(count, EVENT)
        events["timestamp"] = np.sort(random.integers(start, start + PORTION_US, count))
        events["x"], events["y"] = random.integers(0, WIDTH, count), random.integers(0, HEIGHT, count)
        events["polarity"] = random.integers(0, 2, count)
        store = dv.EventStore()
        for t, x, y, polarity in events.tolist():
            store.push_back(t, x, y, bool(polarity))
        frames: tuple[Frame, ...] = ()
        if start - framed_us >= 33_000:
            framed_us, frames = start, (Frame(start, 5_000, image),)
        made.append(Portion(Ready(events, store.toPacket()), frames))
    return made


def taken(given: list[Portion], recorded: bool) -> tuple[float, int]:
    """Seconds of processor time until all portions are shown, and bytes that were recorded."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        pictures = LivePictures(f"mcoe-benchmark-{os.getpid()}-", Geometry(), 0)
        clock, remembered, recordings = CameraClock(), Remembered(), Recordings(Path(folder), lambda event: None)
        started = time.process_time()
        if recorded:
            recordings.begin("benchmark", {}, in_sync=True)
        for number, portion in enumerate(given):
            arrived_ns = 1_000 * PORTION_US * (number + 1)
            clock.observe(portion, arrived_ns)
            pictures.add(portion, arrived_ns)
            remembered.add(portion, arrived_ns)
            recordings.add(portion)
        recordings.finish()
        used = time.process_time() - started
        pictures.close()
        return used, sum(path.stat().st_size for path in Path(folder).iterdir())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mega-events", type=float, nargs="+", default=[0.2, 1, 5, 12], help="per second")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    for rate in asked.mega_events:
        given = portions(rate, asked.seconds)
        found[f"shown_core_s_per_s_at_{rate:g}_mev"] = taken(given, recorded=False)[0] / asked.seconds
        used, size = taken(given, recorded=True)
        found[f"recorded_core_s_per_s_at_{rate:g}_mev"] = used / asked.seconds
        found[f"recorded_bytes_per_event_at_{rate:g}_mev"] = size / (1e6 * rate * asked.seconds)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:40} {value:8.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
