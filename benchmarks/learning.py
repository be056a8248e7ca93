"""What learning on the wearable costs: from labelled pictures to the wearer's own model, and what a round sends.

    python benchmarks/learning.py [--preset mcoe-edge] [--clips 10] [--seconds 5] [--json]

A session of so many labelled clips of so many seconds (30 pairs of pictures in each) goes to the learning process
(`client.learn`) as the main process hands it over: every picture is encoded, the head is fine-tuned for ten epochs and
the model is written. Then a second session of the same size is learned, with the replay memory of the first. Weights
and pictures are random, which cost as much as others. Joules are the energy of a processor that draws ``--watts`` while
one core works: a proxy, to be replaced by a measurement on the device.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord
from flwr.common.serde import config_record_to_proto

from client.learn_task import PAIR, NewClip, Task
from client.lesson_book import LessonBook, ResultFile
from mcoe_model.health import Health
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, file_sha256, write_model
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build
from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import pack
from mcoe_model.update import payload_names, specs_of

KEY = bytes(32)
FPS = 30


def prepared(folder: Path, preset: str) -> tuple[Path, Generation, dict[str, int]]:
    """A model file with random weights, its generation, and the bytes of what travels in a round and a check-in."""
    tensors = tensors_of(build(preset, seed=0))
    generation = Generation(preset, backbone_sha256(tensors), 90, Normalisation(0.3, 0.2, 0.5, 0.1))
    made = folder / "models" / "made"
    write_model(made, tensors, ModelCard(generation, "a benchmark"))
    model = made.rename(made.with_name(f"{file_sha256(made)}.safetensors"))
    head = pack({name: tensors[name] for name in payload_names(specs_of(tensors), "head")})
    can = ("train-head", "evaluate", "run-models")
    check_in = CheckIn("w" * 16, 10, runs="a" * 64, preset=preset, capabilities=can)
    records = (check_in.to_record(), Health().to_record())
    said = sum(config_record_to_proto(ConfigRecord(record)).ByteSize() for record in records)  # type: ignore[arg-type]
    return model, generation, {"round_each_way_bytes": len(head), "check_in_bytes": said}


def lesson(folder: Path, model: Path, first: int, clips: int, pairs: int) -> tuple[dict[str, float], bytes]:
    """Learn a session whose spans count from ``first``; what it cost, and the memory afterwards."""
    random = np.random.default_rng(first)
    new = [NewClip(f"{span}-{span}", span % len(EMOTIONS), 20_000, pairs) for span in range(first, first + clips)]
    names = tuple(clip.name for clip in new)
    stand = tuple(f"{span}-{span}" for span in range(1, first + clips))
    task = Task(str(folder / "lessons"), KEY.hex(), str(folder / "models"), str(model), names, stand, 20_000)
    pictures = random.integers(0, 255, (pairs, *PAIR), np.uint8).tobytes()
    used, started = _children_s(), time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "client.learn"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(task.to_json())
        for clip in new:
            process.stdin.write(clip.to_json() + pictures)
        process.stdin.write(b"\n")
    assert process.returncode == 0
    result = ResultFile(folder / "lessons", KEY).read()
    assert result is not None and result.outcome == "learned"
    seconds = {"wall_s": time.perf_counter() - started, "processor_s": _children_s() - used, "head_s": result.seconds}
    return seconds, result.memory


def measure(preset: str, clips: int, seconds: float, watts: float) -> dict[str, float]:
    """Both sessions, and the bytes of a round."""
    with tempfile.TemporaryDirectory() as made:
        folder, pairs = Path(made), round(FPS * seconds)
        model, generation, travels = prepared(folder, preset)
        first, memory = lesson(folder, model, 1, clips, pairs)
        LessonBook(folder / "lessons", KEY, generation.id).write_memory(memory)
        second, _ = lesson(folder, model, 1 + clips, clips, pairs)
    found: dict[str, float] = {f"first_{name}": value for name, value in first.items()}
    found |= {f"second_{name}": value for name, value in second.items()}
    return found | {"second_joules": watts * second["processor_s"]} | travels


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mcoe-edge")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--watts", type=float, default=7.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.preset, asked.clips, asked.seconds, asked.watts)
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"  {name:28} {value:14,.2f}")


if __name__ == "__main__":
    main()
