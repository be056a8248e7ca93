"""For the tests of the client: a store of made-up features for mcoe-tiny, so that a client learns in a moment."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from mcoe_model.learning.samples import FeatureSamples, Samples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, model_specs, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, Tensors, tensors_sha256
from mcoe_model.networks import MCOENet, build
from mcoe_model.protocol import TrainTask
from mcoe_model.streams import stream
from mcoe_model.update import TrainMode, payload_names, specs_of
from server.acceptance import Expectation

torch.set_num_threads(1)

BASE_SHA256 = "b" * 64


@lru_cache(maxsize=1)
def base() -> tuple[Tensors, ModelCard]:
    """The base model of every test."""
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.2, 0.1, 0.5, 0.1))
    return tensors, ModelCard(generation, "test")


def payload() -> Tensors:
    """What travels to a client."""
    tensors, _ = base()
    return {name: tensors[name].copy() for name in payload_names(specs_of(tensors), "head")}


def task(**changes: object) -> TrainTask:
    """The first round's task."""
    usual: dict[str, object] = {
        "round_number": 1,
        "base_sha256": BASE_SHA256,
        "payload_sha256": tensors_sha256(payload()),
        "generation": base()[1].generation.id,
        "train_mode": "head",
        "fine_tune": FineTuneSettings(epochs=2, batch_size=4, learning_rate=3e-3),
        "seed": 5,
    }
    return TrainTask(**usual | changes)  # type: ignore[arg-type]


def expectation(client: str) -> Expectation:
    """What the server demands of this client's reply."""
    tensors, card = base()
    model = build("mcoe-tiny", seed=0)
    config = model.config
    assert model_specs(model) == specs_of(tensors)
    sizes = (specs_of(tensors), config.experts, config.top_k)
    return Expectation(1, BASE_SHA256, card.generation.id, "head", *sizes, frozenset([client]), None)


class ToyStore:
    """Clips that are features drawn from the client's name; the label shows in them, so that they can be learned.

    ``resident`` is the model that clients share in a simulation: whatever the one before left in it.
    """

    def __init__(self, client_id: str, clips: int, resident: MCOENet | None = None) -> None:
        self.client_id = client_id
        self.clips = clips
        self.resident = resident or build("mcoe-tiny", seed=1)

    learns: tuple[TrainMode, ...] = ("head", "full")

    def clip_names(self) -> tuple[str, ...]:
        return tuple(f"{self.client_id} clip {index}" for index in range(self.clips))

    def model(self) -> tuple[MCOENet, ModelCard]:
        return self.resident, base()[1]

    def samples(self, model: MCOENet, train_mode: TrainMode) -> Samples:
        random = stream(self.client_id, "clips")
        labels = random.integers(0, 7, size=self.clips)
        size = model.feature_size
        centres = stream("centres").normal(size=(7, size))

        def features(label: int) -> dict[tuple[str, str], np.ndarray]:  # type: ignore[type-arg]
            made = 0.3 * random.normal(size=(2, 20, size)) + centres[label]
            return {(m, "any"): made[i].astype(np.float32) for i, m in enumerate(("frame", "event"))}

        clips = tuple(features(int(label)) for label in labels)
        return FeatureSamples(self.clip_names(), labels.astype(np.int64), clips)

    def method(self) -> None:
        """Nothing is remembered."""

    def tried(self, model: MCOENet, train_mode: TrainMode) -> Samples:
        return self.samples(model, train_mode)
