"""A real wearable for the tests, what they look for on its disk, and a model for it to recognise with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build
from simulations.fleet.wearable import RealWearable

__all__ = ["AEDAT4", "RealWearable", "files_with", "untrained_model"]

#: What every AEDAT4 file begins with.
AEDAT4 = b"#!AER-DAT4"


def untrained_model(path: Path, seed: int = 1) -> Path:
    """A file with an untrained mcoe-tiny to recognise with; another seed is another generation."""
    tensors = tensors_of(build("mcoe-tiny", seed=seed))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    write_model(path, tensors, ModelCard(generation, "a test"))
    return path


def files_with(places: Iterable[Path], *needles: bytes) -> list[Path]:
    """The files in these folders that hold any of the needles."""
    found = (path for place in places for path in place.rglob("*") if path.is_file())
    return [path for path in found if any(needle in path.read_bytes() for needle in needles)]
