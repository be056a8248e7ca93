"""Live recognition from the camera to the expression, with the wearable's own processes and a simulated camera.

    python benchmarks/live.py [--model mcoe-edge] [--threads 2] [--seconds 60] [--long] [--json]

Three phases: the camera's process alone, with recognition beside it (``--seconds``; 30 minutes with ``--long``), and
with recognition standing still (SIGSTOP) half-way through reading. In each: pairs of pictures a second, the longest gap
between two, and processor time. Recognition never blocks capture when these are the same in all three. Of recognition:
milliseconds from the arrival of a window's last event to its expression (of the windows that are said, at most ten a
second), windows recognised a second, and the share that was skipped.

Then the whole wearable, which recognises meanwhile: pictures a second of the preview that a wearer sees who fits the
camera, asked for over HTTPS as the page's script does, beside the ten that it must reach; and what the memory of the
main process, camera and recognition grew by from the first fifth of another ``--seconds`` (or 30 minutes) to their end,
with a recording of a fifth of them, a minute at most, half-way. Weights are random: what is recognised means nothing.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from client.ring import PairRing
from mcoe_model.data.geometry import Geometry
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build
from mcoe_model.networks.presets import MCOE_PRESETS
from simulations.fleet.phone import Phone
from simulations.fleet.processes import free_ports, wait_for
from simulations.fleet.wearable import RealWearable

LONG_S = 1800.0
#: Pictures of the preview that a second must bring at least, and the rest between two questions (`fit.js`).
PREVIEW_PER_S, _PREVIEW_PAUSE_S = 10.0, 0.04
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
        beside = watch(ring, camera, seconds)
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
        "camera_beside_recognition": beside,
        "camera_while_recognition_stands_still": stopped,
        "recognition": {
            "latency_ms": statistics.median(latencies),
            "latency_p99_ms": float(np.quantile(latencies, 0.99)),
            "windows_per_s": statistics.fmean(event["fps"] for event in seen[len(seen) // 5 :]),
            "skipped_share": (seen[-1]["skipped"] - seen[0]["skipped"]) / came,
            "share_of_a_core": used / seconds,
        },
    }


@contextmanager
def a_wearable(folder: Path, model: Path) -> Iterator[tuple[RealWearable, Phone]]:
    """A whole wearable that recognises, and a phone that is paired with it."""
    wearable = RealWearable(folder / "wearable", "simulated:1", free_ports(1))
    try:
        wearable.command("model", "import", model)
        wearable.start()
        phone = Phone(wearable.page_port, wearable.folder / "page" / "page.crt")
        phone.pair(wearable.command("page")["code"])
        phone.set_up("seven quiet lanterns", ("capture",))
        wait_for(lambda: wearable.status()["live"] is not None, 120, "the first recognition")
        yield wearable, phone
        phone.close()
        wearable.end()
    finally:
        wearable.remove()


def preview(phone: Phone, seconds: float) -> dict[str, float]:
    """How the pictures come with which a wearer fits the camera: asked for in the rhythm of the page's script."""
    seen, last, ends = list[float](), -1, time.monotonic() + seconds
    while (asked := time.monotonic()) < ends:
        if (number := phone.preview(Geometry(), last)) != last:
            seen.append(time.monotonic())
            last = number
        time.sleep(max(0.0, _PREVIEW_PAUSE_S - (time.monotonic() - asked)))
    return {
        "pictures_per_s": (len(seen) - 1) / (seen[-1] - seen[0]),
        "must_reach": PREVIEW_PER_S,
        "longest_gap_ms": 1e3 * float(np.diff(seen).max()),
    }


def memory_growth(wearable: RealWearable, seconds: float) -> dict[str, float]:
    """What each process came to hold [MiB] in the last four fifths, with a recording half-way."""
    assert wearable.process
    pids = {"main": wearable.process.popen.pid}
    pids |= {name: wearable.child(f"client.{name}") or sys.exit(f"no {name}") for name in ("capture", "recognise")}
    time.sleep(seconds / 5)
    held = {name: memory_mib(pid) for name, pid in pids.items()}
    time.sleep(seconds / 5)
    recorded_s = min(60.0, seconds / 5)
    wearable.ask("start")
    time.sleep(recorded_s)
    wearable.ask("stop")
    time.sleep(seconds * 3 / 5 - recorded_s)
    grown = {name: memory_mib(pid) - held[name] for name, pid in pids.items()}
    return grown | {"seconds": 0.8 * seconds, "recorded_s": recorded_s}


def memory_mib(pid: int) -> float:
    """What a process holds, shared memory and files apart."""
    return float(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


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
        apart_s = min(20.0, seconds / 3)
        found = measure(model, asked.threads, seconds, apart_s)
        with a_wearable(Path(folder), model) as (wearable, phone):
            found["preview"] = preview(phone, apart_s)
            found["memory_grew_mib"] = memory_growth(wearable, seconds)
    if asked.json:
        print(json.dumps(found))
        return
    for phase, figures in found.items():
        print(phase)
        for name, value in figures.items():
            print(f"  {name:26} {value:10.2f}")


if __name__ == "__main__":
    main()
