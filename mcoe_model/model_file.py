"""A model on disk: one safetensors file whose header carries the model's card. NumPy only, no torch.

The card travels as one JSON string, because safetensors does not promise an order for several metadata keys and the
same model must be the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, load_file, save

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.files import write_bytes
from mcoe_model.names import EMOTIONS

Tensors = dict[str, NDArray[Any]]

#: Bytes before a safetensors file's header, which say how long it is.
HEADER_LENGTH = 8

#: Raised when the bytes, names or meaning of a message between client and server change.
PROTOCOL_VERSION = 1
#: Raised when pictures reach the network in another way (crop, resize, polarity, normalisation).
PREPROCESSING_VERSION = 1
#: The name of SEE's representation of events; `mcoe_model.data.representations` has the others.
TERNARY = "ternary"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each modality's pictures, on the scale 0..1, measured on the base subjects."""

    frame_mean: float
    frame_sd: float
    event_mean: float
    event_sd: float


#: The constants of SEEN's and MCO-E Net's released code, used only where a published run is reproduced.
SEE_NORMALISATION = Normalisation(0.22616537, 0.118931554, 0.504413, 0.06928615)


@dataclass(frozen=True)
class Generation:
    """What features, updates and models must have in common to be combined. Different generations never meet.

    ``top_k`` is the number of experts that every clip is routed to; router statistics are checked against it.
    ``representation`` names how events become pictures; wearables make SEE's, `ternary`.
    """

    preset: str
    backbone_sha256: str
    input_size: int
    normalisation: Normalisation
    labels: tuple[str, ...] = EMOTIONS
    top_k: int = 2
    preprocessing_version: int = PREPROCESSING_VERSION
    protocol_version: int = PROTOCOL_VERSION
    representation: str = TERNARY

    @property
    def id(self) -> str:
        """A short name: the first 16 hex digits of the hash of every field."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()[:16]

    def to_plain(self) -> dict[str, Any]:
        """Every field by name, but for a representation that is SEE's: earlier programs know no other, nor the word."""
        plain = asdict(self)
        if self.representation == TERNARY:
            del plain["representation"]
        return plain


@dataclass(frozen=True)
class ModelCard:
    """What a model is, where it comes from and what it was measured at."""

    generation: Generation
    origin: str
    parent_sha256: str | None = None
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def child_of(self, parent_sha256: str, origin: str, trained_on: Mapping[str, Any]) -> ModelCard:
        """The card of a model made from this one; its metrics are not yet known."""
        return replace(self, origin=origin, parent_sha256=parent_sha256, trained_on=trained_on, metrics={})

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"generation": self.generation.to_plain()}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelCard:
        raw = json.loads(text)
        generation = raw.pop("generation")
        generation["normalisation"] = Normalisation(**generation["normalisation"])
        generation["labels"] = tuple(generation["labels"])
        return ModelCard(generation=Generation(**generation), **raw)


def model_bytes(tensors: Mapping[str, NDArray[Any]], card: ModelCard) -> bytes:
    """The file's bytes: the same tensors and card always give the same bytes."""
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    return bytes(save(ordered, metadata={"card": card.to_json()}))


def write_model(path: Path, tensors: Mapping[str, NDArray[Any]], card: ModelCard) -> str:
    """Write the model atomically; returns the SHA-256 of the file."""
    content = model_bytes(tensors, card)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_model(path: Path) -> tuple[Tensors, ModelCard]:
    """Tensors by name and the card.

    Raises DataMissing when there is no such file, ModelInvalid when it is damaged or carries no card.
    """
    card = read_card(path)
    try:
        return dict(load_file(path)), card
    except (SafetensorError, TypeError) as fault:
        raise ModelInvalid(f"{path} is damaged ({fault}); fetch or train it again") from fault


def read_card(path: Path) -> ModelCard:
    """The card alone, without reading the tensors. Raises as `read_model`."""
    if not path.is_file():
        raise DataMissing(f"there is no model file {path}")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as fault:
        raise ModelInvalid(f"{path} is damaged ({fault}); fetch or train it again") from fault
    return _card(metadata, path)


def parse_model(content: bytes, path: Path) -> tuple[Tensors, ModelCard]:
    """As `read_model`, of a file's bytes; ``path`` is what it is called in errors. Raises ModelInvalid."""
    card = card_of_header(content, path)
    try:
        return dict(load(content)), card
    except (SafetensorError, TypeError) as fault:
        raise ModelInvalid(f"{path} is damaged ({fault}); fetch or train it again") from fault


def card_of_header(content: bytes, path: Path) -> ModelCard:
    """The card of a file that begins with these bytes, the whole header among them. Raises ModelInvalid."""
    length = int.from_bytes(content[:HEADER_LENGTH], "little")
    try:
        metadata = dict(json.loads(content[HEADER_LENGTH : HEADER_LENGTH + length])["__metadata__"])
    except (ValueError, TypeError, KeyError, RecursionError) as fault:
        raise ModelInvalid(f"{path} has no header that can be read; fetch or train it again") from fault
    return _card(metadata, path)


def _card(metadata: Mapping[str, Any], path: Path) -> ModelCard:
    if "card" not in metadata:
        raise ModelInvalid(f"{path} carries no model card; make one with train_centralised.py")
    try:
        return ModelCard.from_json(metadata["card"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise ModelInvalid(f"the model card of {path} cannot be read ({fault})") from fault


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """A hash of names, dtypes, shapes and values, independent of order and of any file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{name}\x1f{array.dtype.str}\x1f{array.shape}\x1f".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
