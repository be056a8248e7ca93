"""Live recognition from the camera to the expression, with the wearable's own processes and a simulated camera.

    python benchmarks/live.py [--model mcoe-edge] [--threads 2] [--seconds 60] [--long] [--json]

Three phases: the camera's process alone, with recognition beside it (``--seconds``; 30 minutes with ``--long``), and
with recognition standing still (SIGSTOP) half-way through reading. In each: pairs of pictures a second, the longest gap
between two, and processor time. Recognition never blocks capture when these are the same in all three. Of recognition:
milliseconds from the arrival of a window's last event to its expression (of the windows that are said, at most ten a
second), windows recognised a second, the share that was skipped, and what both processes' memory grew by from the first
fifth of the phase to its end. Weights are random: what is recognised means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from client.ring import PairRing
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build
from mcoe_model.networks.presets import MCOE_PRESETS

LONG_S = 1800.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """A process of the wearable's, and what it has said."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.said.append(json.loads(line))

    def wait_for(self, what: str) -> dict[str, Any]:
        """The first event of this kind."""
        while True:
            found = next((event for event in list(self.said) if event["is"] == what), None)
            if found:
                return found
            if self.popen.poll() is not None:
                sys.exit(f"a process ended before it said {what!r}")
            time.sleep(0.05)

    def processor_s(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self) -> float:
        """What it holds, shared memory and files apart."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return float(status.split("RssAnon:")[1].split()[0]) / 1024

    def end(self) -> None:
        """Ask it to quit."""
        assert self.popen.stdin
        self.popen.stdin.close()
        self.popen.wait(30)


def watch(ring: PairRing, camera: Child, seconds: float) -> dict[str, float]:
    """How regularly pairs come."""
    newest = ring.newest()
    last = newest.number if newest else -1
    began, used, arrived = time.monotonic(), camera.processor_s(), list[int]()
    while time.monotonic() - began < seconds:
        time.sleep(0.5)
        pairs, _ = ring.since(last)
        arrived += [pair.arrived_ns for pair in pairs]
        last = pairs[-1].number if pairs else last
    took = time.monotonic() - began
    return {
        "pairs_per_s": len(arrived) / took,
        "longest_gap_ms": float(np.diff(arrived).max()) / 1e6,
        "p99_gap_ms": float(np.quantile(np.diff(arrived), 0.99)) / 1e6,
        "camera_share_of_a_core": (camera.processor_s() - used) / took,
    }


def measure(model: Path, threads: int, seconds: float, apart_s: float) -> dict[str, Any]:
    """The figures of the three phases."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmpfs:
        rings = f"mcoe-benchmark-{os.getpid()}-"
        camera = Child(
            "client.capture", "--device", "simulated:1", "--rings", rings, "--tmpfs", tmpfs, "--geometry", "{}"
        )
        name = camera.wait_for("ready")["rings"]["pairs"]
        ring = PairRing.attach(name)
        time.sleep(2)
        alone = watch(ring, camera, apart_s)
        live = Child("client.recognise", "--ring", name, "--model", str(model), "--threads", str(threads))
        live.wait_for("seen")
        live.said.clear()
        used = live.processor_s()
        first = watch(ring, camera, seconds / 5)
        held = {"camera": camera.memory_mib(), "recognise": live.memory_mib()}
        rest = watch(ring, camera, seconds * 4 / 5)
        grown = {name: child.memory_mib() - held[name] for name, child in (("camera", camera), ("recognise", live))}
        used = live.processor_s() - used
        seen = [event for event in live.said if event["is"] == "seen"]
        live.popen.send_signal(signal.SIGSTOP)
        stopped = watch(ring, camera, apart_s)
        live.popen.send_signal(signal.SIGCONT)
        live.end()
        camera.end()
    came = seen[-1]["number"] - seen[0]["number"]
    latencies = [event["latency_ms"] for event in seen]
    return {
        "camera_alone": alone,
        "camera_beside_recognition": {name: max(first[name], rest[name]) for name in first},
        "camera_while_recognition_stands_still": stopped,
        "recognition": {
            "latency_ms": statistics.median(latencies),
            "latency_p99_ms": float(np.quantile(latencies, 0.99)),
            "windows_per_s": statistics.fmean(event["fps"] for event in seen[len(seen) // 5 :]),
            "skipped_share": (seen[-1]["skipped"] - seen[0]["skipped"]) / came,
            "share_of_a_core": used / seconds,
        },
        "memory_grew_mib": grown | {"seconds": 0.8 * seconds},
    }


def random_model(preset: str, file: Path) -> Path:
    """A model file of a preset with random weights."""
    tensors = tensors_of(build(preset, seed=0))
    size = MCOE_PRESETS[preset].input_size
    generation = Generation(preset, backbone_sha256(tensors), size, Normalisation(0.3, 0.2, 0.5, 0.1))
    write_model(file, tensors, ModelCard(generation, "benchmark"))
    return file


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mcoe-edge", choices=sorted(MCOE_PRESETS))
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(asked.model, Path(folder, "model.safetensors"))
        seconds = LONG_S if asked.long else asked.seconds
        found = measure(model, asked.threads, seconds, min(20.0, seconds / 3))
    if asked.json:
        print(json.dumps(found))
        return
    for phase, figures in found.items():
        print(phase)
        for name, value in figures.items():
            print(f"  {name:26} {value:10.2f}")


if __name__ == "__main__":
    main()
