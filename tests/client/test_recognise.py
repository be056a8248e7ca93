"""Live recognition as a process of its own: a real ring that the test fills, real models, real commands, SIGKILL."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_camera import NORMALISATION, Camera, pairs, write_toy_model

from client.live import Live, load_live_model
from mcoe_model.data.cache import resized
from mcoe_model.data.events import Pair
from mcoe_model.edge import SPAN
from mcoe_model.errors import ModelInvalid
from mcoe_model.learning.samples import normalise
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import PREPROCESSING_VERSION
from mcoe_model.names import EMOTIONS

LONG_S = 120.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [write_toy_model(folder / f"model{seed}.safetensors", seed) for seed in (1, 2)]


def probabilities(model_file: Path, shown: list[Pair]) -> np.ndarray:
    """What the model as it was trained says of the window of these SPAN + 1 pairs."""
    model, card = load_model(model_file)
    window = [shown[at] for at in range(0, SPAN + 1, 4)]
    size = card.generation.input_size
    shown_as = ([pair.frame for pair in window], [pair.event for pair in window])
    frame, event = (np.stack([resized(Image.fromarray(p), size) for p in pictures]) for pictures in shown_as)
    with torch.inference_mode():
        said: np.ndarray = model(
            normalise(frame, 0.3, 0.2)[None, None].expand(1, 3, -1, -1, -1),
            normalise(event, 0.5, 0.1)[None, None].expand(1, 3, -1, -1, -1),
        ).softmax(1)[0].numpy()
    return said


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_window_is_recognised_as_the_trained_model_does_and_what_was_skipped_is_counted(
    models: list[Path], at_once: int
) -> None:
    live, shown = Live(), pairs(SPAN + 10)
    live.use(load_live_model(models[0]))
    found = [live.see(shown[start : start + at_once]) for start in range(0, len(shown), at_once)]
    seen = [one for one in found if one is not None]
    assert [one.number for one in seen] == [n for n in range(SPAN, SPAN + 10) if n % at_once == at_once - 1 or n == 21]
    assert live.skipped == 10 - len(seen)
    for one in seen:
        expected = probabilities(models[0], shown[one.number - SPAN : one.number + 1])
        np.testing.assert_allclose(one.probabilities, expected, rtol=1e-4, atol=1e-6)


def test_no_window_spans_a_gap(models: list[Path]) -> None:
    live, shown = Live(), pairs(3 * SPAN)
    live.use(load_live_model(models[0]))
    found = [live.see([pair]) is not None for pair in shown if pair.number != SPAN + 3]
    assert [n for n, there in enumerate(found) if there] == [SPAN, SPAN + 1, SPAN + 2, *range(2 * SPAN + 3, len(found))]
    assert live.skipped == 0


def test_another_model_goes_on_with_the_next_window(models: list[Path]) -> None:
    live, shown = Live(), pairs(SPAN + 2)
    assert live.see(shown[:SPAN]) is None  # no model yet, which is no window skipped
    for at, model in enumerate(models):
        live.use(load_live_model(model))
        found = live.see([shown[SPAN + at]])
        assert found is not None
        expected = probabilities(model, shown[at : SPAN + 1 + at])
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)
    assert live.skipped == 0


@pytest.mark.parametrize(
    "changes",
    [{"preprocessing_version": PREPROCESSING_VERSION + 1}, {"preset": "mcoe-unheard-of"}, {"top_k": 3},
     {"normalisation": replace(NORMALISATION, event_sd=0.0)}],
)  # fmt: skip
def test_a_model_of_another_generation_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelInvalid) as refused:
        load_live_model(write_toy_model(tmp_path / "other.safetensors", 1, **changes))
    assert "\n" not in str(refused.value)


class Process:
    """`python -m client.recognise`, and what it says."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "client.recognise", *map(str, arguments)]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.events.put(json.loads(line))

    def tell(self, **command: str) -> None:
        assert self.popen.stdin
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()

    def hear(self, wanted: Callable[[dict[str, Any]], bool], limit_s: float = LONG_S) -> dict[str, Any]:
        """The next event that is wanted."""
        ends = time.monotonic() + limit_s
        while True:
            event = self.events.get(timeout=max(0.0, ends - time.monotonic()))
            if wanted(event):
                return event


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def go(*arguments: str | Path) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield go
    for process in started:
        process.popen.kill()
        process.popen.wait()


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera(rate=20)
    yield made
    made.stop()


def is_(what: str, **values: object) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["is"] == what and all(event.get(name) == value for name, value in values.items())


def test_models_are_exchanged_under_load_and_one_that_is_damaged_is_refused(
    start: Callable[..., Process], camera: Camera, models: list[Path], tmp_path: Path
) -> None:
    process = start("--ring", camera.ring.name)
    said = process.hear(is_("waiting", **{"for": "model"}))
    assert "mcoe-client model import FILE" in said["why"]
    process.tell(do="model", file=str(models[0]))
    process.hear(is_("model", name="model1", preset="mcoe-tiny"))
    seen = process.hear(is_("seen", model="model1"))
    assert len(seen["probabilities"]) == len(EMOTIONS) and sum(seen["probabilities"]) == pytest.approx(1, abs=1e-3)
    most = seen["probabilities"].index(seen["confidence"])
    assert seen["confidence"] == max(seen["probabilities"]) and seen["emotion"] == EMOTIONS[most]
    assert seen["latency_ms"] > 0 and seen["fps"] > 0
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(models[1].read_bytes()[:-1000])
    for refused in (damaged, tmp_path / "absent.safetensors"):
        process.tell(do="model", file=str(refused))
        assert "\n" not in process.hear(is_("refused", do="model"))["why"]
        process.hear(is_("seen", model="model1"))
    for name in ("model2", "model1", "model2"):
        process.tell(do="model", file=str(models[int(name[-1]) - 1]))
        while not is_("model", name=name)(event := process.hear(lambda _: True)):
            # There is no moment without a model; without pictures there may be, where the camera's thread is set aside.
            assert event["is"] == "seen" or event.get("for") == "pictures"
        process.hear(is_("seen", model=name))
    process.tell(do="nonsense")
    process.hear(is_("refused", do="nonsense"))
    process.tell(do="quit")
    assert process.popen.wait(LONG_S) == 0


def test_a_camera_that_is_lost_is_said_and_a_new_ring_goes_on(
    start: Callable[..., Process], camera: Camera, models: list[Path]
) -> None:
    process = start("--ring", camera.ring.name, "--model", models[0])
    process.hear(is_("seen"))
    camera.stop()
    process.hear(is_("waiting", **{"for": "pictures"}))
    process.tell(do="ring", name="mcoe-no-such-ring")
    process.hear(is_("refused", do="ring"))
    again = Camera(rate=20)
    try:
        process.tell(do="ring", name=again.ring.name)
        assert process.hear(is_("seen"))["number"] <= again.number
    finally:
        again.stop()
    assert process.popen.stdin
    process.popen.stdin.close()  # it ends with its input
    assert process.popen.wait(LONG_S) == 0


def test_the_writer_may_be_killed_in_the_middle_of_a_picture(
    start: Callable[..., Process], models: list[Path]
) -> None:
    code = """
import sys, numpy as np
from client.ring import PairRing
from mcoe_model.data.events import Pair
ring = PairRing.create(sys.argv[1])
picture = np.zeros((90, 90), np.uint8)
number = 0
while True:
    ring.put(Pair(number, number, picture, picture, True))
    if not number:
        print(flush=True)
    number += 1
"""
    names = [f"mcoe-test-{uuid.uuid4().hex}" for _ in range(2)]
    process = start("--model", models[0])
    process.hear(is_("model"))
    for name in names:
        writer = subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE)
        try:
            assert writer.stdout and writer.stdout.readline()
            process.tell(do="ring", name=name)
            assert process.hear(is_("seen"))["emotion"] in EMOTIONS
            assert process.hear(lambda event: event["is"] == "seen" and event["skipped"] > 1000)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.communicate()
            Path("/dev/shm", name).unlink()
    process.hear(is_("waiting", **{"for": "pictures"}))


def test_the_camera_does_not_notice_that_recognition_stands_still_or_is_killed(
    start: Callable[..., Process], camera: Camera, models: list[Path]
) -> None:
    process = start("--ring", camera.ring.name, "--model", models[0])
    process.hear(is_("seen"))
    os.kill(process.popen.pid, signal.SIGSTOP)
    number = camera.number
    wait_for(lambda: camera.number > number + camera.ring.slots + 10)  # round the ring and on
    os.kill(process.popen.pid, signal.SIGCONT)
    after = process.hear(lambda event: event["is"] == "seen" and event["number"] > number + camera.ring.slots)
    assert after["skipped"] >= camera.ring.slots
    process.popen.kill()
    number = camera.number
    wait_for(lambda: camera.number > number + 10)
    assert np.median(camera.puts_s) < 0.05  # processor time of a put, which waits for nobody
    again = start("--ring", camera.ring.name, "--model", models[1])
    assert again.hear(is_("seen"))["number"] > number


def wait_for(holds: Callable[[], bool], limit_s: float = LONG_S) -> None:
    ends = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)
