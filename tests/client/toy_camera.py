"""For the tests of live recognition: a camera's process made small, and models of mcoe-tiny with random weights."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from client.ring import PairRing
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import PICTURE_SIZE
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build

NORMALISATION = Normalisation(0.3, 0.2, 0.5, 0.1)


def write_toy_model(path: Path, seed: int, **changes: Any) -> Path:
    """A model file; ``changes`` are of its generation."""
    tensors = tensors_of(build("mcoe-tiny", seed=seed))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, NORMALISATION)
    write_model(path, tensors, ModelCard(replace(generation, **changes), "test"))
    return path


def pairs(count: int, first: int = 0) -> list[Pair]:
    """The same random pictures for the same numbers."""
    pictures = np.random.default_rng(7).integers(0, 256, (first + count, 2, PICTURE_SIZE, PICTURE_SIZE), np.uint8)
    return [Pair(n, 33_333 * n, *pictures[n], fresh=True) for n in range(first, first + count)]


class Camera:
    """A writer of pairs, as the camera's process is one, ``rate`` a second, in a thread."""

    def __init__(self, rate: float) -> None:
        self.ring = PairRing.create(f"mcoe-test-{uuid.uuid4().hex}")
        self.puts_s, self.number = list[float](), 0
        self._pause = 1 / rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        shown = pairs(64)
        while not self._stopped.wait(self._pause):
            began = time.thread_time()
            self.ring.put(replace(shown[self.number % 64], number=self.number))
            self.puts_s.append(time.thread_time() - began)
            self.number += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.ring.unlink()
