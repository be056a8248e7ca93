"""Small AEDAT4 files, right and wrong, made with dv-processing."""

from __future__ import annotations

from pathlib import Path

import dv_processing as dv
import numpy as np

from client.cameras.events import NumpyEvents
from mcoe_model.data.events import EVENT
from mcoe_model.data.geometry import SENSOR

START_US = 1_700_000_000_000_000
CONFIG = dv.io.MonoCameraWriter.DAVISConfig


def make_events(count: int, start_us: int, length_us: int, seed: int = 0) -> np.ndarray:
    """Events on the sensor, evenly spread over a time."""
    g = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["timestamp"] = np.linspace(start_us, start_us + length_us - 1, count).astype(np.int64)
    events["x"], events["y"] = g.integers(0, SENSOR[0], count), g.integers(0, SENSOR[1], count)
    events["polarity"] = g.integers(0, 2, count)
    return events


def write_recording(path: Path, seconds: int = 1, per_packet: int = 500, config: object = None) -> np.ndarray:
    """Events in packets of 10 ms, 30 frames, 1000 samples of motion and one signal per second; returns the events."""
    writer = dv.io.MonoCameraWriter(str(path), config or CONFIG("DAVIS346_00000142", SENSOR))
    packets = [make_events(per_packet, START_US + i * 10_000, 10_000, seed=i) for i in range(100 * seconds)]
    for i, events in enumerate(packets):
        writer.writeEventPacket(NumpyEvents(events).packet())
        for step in range(10):
            writer.writeImu(dv.IMU(START_US + i * 10_000 + step * 1000, 30.0, 0, 1, 0, 0, 0, 2, 0, 0, 0))
    for i in range(30 * seconds):
        image = np.full(SENSOR[::-1], i % 256, np.uint8)
        writer.writeFrame(dv.Frame(START_US + i * 33_333, 5_000, 0, 0, image, dv.FrameSource.SENSOR))
    for i in range(seconds):
        writer.writeTrigger(dv.Trigger(START_US + i * 1_000_000, dv.TriggerType.EXTERNAL_SIGNAL_RISING_EDGE))
    del writer
    return np.concatenate(packets)
