"""The fleet's first model: a small `mcoe-tiny`, trained on synthetic people whom nobody of the fleet is, and kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import GENERATOR, write_see
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import PictureSamples, measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, write_model
from mcoe_model.networks import build
from mcoe_model.networks.presets import PRESETS
from mcoe_model.workers import one_thread
from simulations.console import Display
from simulations.scene import cache_folder

PRESET = "mcoe-tiny"
#: Seed of the people and of the training; the wearers' own are small numbers, so that they are other people.
SEED = 1000


@dataclass(frozen=True)
class BaseRecipe:
    """``subjects`` people play ``sequences`` expressions each, ``difficulty`` as synthetic data have it."""

    subjects: int = 8
    sequences: int = 14
    difficulty: float = 0.3
    epochs: int = 40


def base_model(recipe: BaseRecipe, display: Display, workers: int = 2) -> Path:
    """The file of the model that this recipe makes: trained at the first call, under a minute, and kept in the cache.

    Raises DiskFull.
    """
    said = json.dumps([PRESET, SEED, GENERATOR, asdict(recipe)])
    folder = cache_folder() / "fleet" / hashlib.sha256(said.encode()).hexdigest()[:16]
    path = folder / "base.safetensors"
    if not path.exists():
        _train(recipe, folder, path, display, workers)
    return path


def _train(recipe: BaseRecipe, folder: Path, path: Path, display: Display, workers: int) -> None:
    size = PRESETS[PRESET].input_size
    people = SyntheticSettings(recipe.subjects, recipe.sequences, size, difficulty=recipe.difficulty, seed=SEED)
    write_see(folder / "people", people, workers=workers, progress=display.phase("draw people for the base model"))
    clips = open_clips(folder / "people", size=size, cache=folder / "clips", workers=workers)
    everybody = range(len(clips.records))
    normalisation = measure_normalisation(clips, everybody)
    one_thread()
    model = build(PRESET, seed=SEED)
    settings = FineTuneSettings(recipe.epochs, 16, 2e-3, 1e-2, schedule="cosine", batch_norm="running", augment=True)
    samples, progress = PictureSamples(clips, tuple(everybody), normalisation), display.phase("train the base model")
    fine_tune(model, samples, settings, train_mode="full", keys=(SEED, "base"), progress=progress)
    tensors = tensors_of(model)
    generation = Generation(PRESET, backbone_sha256(tensors), size, normalisation)
    write_model(path, tensors, ModelCard(generation, "synthetic people"))
