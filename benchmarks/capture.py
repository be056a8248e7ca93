"""What the camera's process takes: seconds of one core's time for each second of what the camera gives.

    python benchmarks/capture.py [--mega-events 0.2 1 5 12] [--seconds 2] [--json]

Events all over the sensor in dv-processing's stores of 10 ms, and 30 frames a second, as fast as they are taken, each
looked at as a camera's are: *shown* is pictures in both rings, the whole sensor's fifteen times a second, and the last
seconds remembered; *recorded* is that and a recording in segments (LZ4) in memory, whose size per event is said beside
it. Below 1 a core keeps up. All threads count, dv-processing's too.
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

from client.cameras.events import as_store, joined
from client.cameras.intake import Intake
from client.cameras.source import Portion
from client.clock_map import CameraClock
from client.live_pictures import LivePictures
from client.recordings import Recordings
from client.remembered import Remembered
from client.ring import SHARED_MEMORY
from mcoe_model.data.events import EVENT
from mcoe_model.data.geometry import SENSOR, Geometry

BATCH_US = 10_000
WIDTH, HEIGHT = SENSOR


@dataclass(frozen=True, eq=False)
class Batch:
    """What dv-processing gives at once: a store of events, and a frame or none."""

    store: Any
    frame: Any | None


def batches(mega_events: float, seconds: float) -> list[Batch]:
    """A stream at random places, in the order of its times."""
    random, made, framed_us = np.random.default_rng(0), [], 0
    count = round(mega_events * BATCH_US)
    image = random.integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    for start in range(0, round(1e6 * seconds), BATCH_US):
        events = np.zeros(count, EVENT)
        events["timestamp"] = np.sort(random.integers(start, start + BATCH_US, count))
        events["x"], events["y"] = random.integers(0, WIDTH, count), random.integers(0, HEIGHT, count)
        events["polarity"] = random.integers(0, 2, count)
        frame = None
        if start - framed_us >= 33_000:
            framed_us, frame = start, dv.Frame(start, 5_000, 0, 0, image, dv.FrameSource.SENSOR)
        made.append(Batch(as_store(events), frame))
    return made


def read(batch: Batch, intake: Intake) -> Portion:
    """A batch as a camera's source hands it out."""
    events = intake.next_events(lambda: batch.store)
    frames = intake.next_frame(lambda: batch.frame)
    assert events is not None
    return Portion(joined([events[1]]), tuple(frames[1]) if frames else (), refused=intake.counted())


def taken(given: list[Batch], recorded: bool) -> tuple[float, int]:
    """Seconds of processor time until all batches are shown, and bytes that were recorded."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        pictures = LivePictures(f"mcoe-benchmark-{os.getpid()}-", Geometry(), 0)
        intake, clock = Intake(), CameraClock()
        remembered, recordings = Remembered(), Recordings(Path(folder), lambda event: None)
        started = time.process_time()
        if recorded:
            recordings.begin("benchmark", {}, in_sync=True)
        for number, batch in enumerate(given):
            arrived_ns = 1_000 * BATCH_US * (number + 1)
            portion = read(batch, intake)
            assert not portion.refused
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
        given = batches(rate, asked.seconds)
        found[f"shown_core_s_per_s_at_{rate:g}_mev"] = taken(given, recorded=False)[0] / asked.seconds
        used, size = taken(given, recorded=True)
        found[f"recorded_core_s_per_s_at_{rate:g}_mev"] = used / asked.seconds
        found[f"recorded_bytes_per_event_at_{rate:g}_mev"] = size / (1e6 * rate * asked.seconds)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:40} {value:8.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
