"""The update a client sends: which tensors it holds, and how they are encoded. NumPy only.

What an update holds is a pure function of (base model, train mode, experts sent); `manifest` is that function, and both
sides use it: the client to build the update, the server to demand it. An expert that was not used is absent, never
zero. Encoding ``delta-f32``: trained minus base, float32, so that an unchanged tensor is exactly zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcoe_model.model_file import Tensors

TrainMode = Literal["head", "full"]
TRAIN_MODES: tuple[TrainMode, ...] = ("head", "full")
ENCODING = "delta-f32"

_EXPERT = re.compile(r"^moe\.experts\.(\d+)\.")


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype (NumPy's name, such as ``float32``) of one tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def specs_of(tensors: Mapping[str, NDArray[Any]]) -> dict[str, TensorSpec]:
    """The shape and dtype of every tensor, in name order."""
    return {name: TensorSpec(tensors[name].shape, tensors[name].dtype.name) for name in sorted(tensors)}


def expert_of(name: str) -> int | None:
    """The expert that a tensor belongs to, or None for a shared tensor."""
    match = _EXPERT.match(name)
    return int(match.group(1)) if match else None


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the head, that is, to everything after the backbones."""
    return not name.startswith("backbones.")


def payload_names(model: Mapping[str, TensorSpec], train_mode: TrainMode) -> tuple[str, ...]:
    """The tensors that travel to a client for this train mode, in name order: the head, or the whole model.

    The published model's dead parameters never travel, in either direction.
    """
    chosen = (name for name in model if train_mode == "full" or is_head(name))
    return tuple(sorted(name for name in chosen if not name.startswith("dead.")))


def manifest(
    model: Mapping[str, TensorSpec], train_mode: TrainMode, experts_sent: Iterable[int]
) -> dict[str, TensorSpec]:
    """The tensors an update must hold, in name order.

    They are those of `payload_names` that are floating, batch-normalisation statistics included, less the experts that
    were not used.
    """
    sent = set(experts_sent)
    chosen = {}
    for name in payload_names(model, train_mode):
        spec = model[name]
        expert = expert_of(name)
        if spec.dtype.startswith("float") and (expert is None or expert in sent):
            chosen[name] = TensorSpec(spec.shape, "float32")
    return chosen


def make_update(base: Mapping[str, NDArray[Any]], trained: Mapping[str, NDArray[Any]], names: Iterable[str]) -> Tensors:
    """Trained minus base for the named tensors, float32."""
    return {
        name: np.asarray(np.subtract(trained[name], base[name], dtype=np.float32)) for name in sorted(names)
    }


def block_norms(update: Mapping[str, NDArray[Any]]) -> dict[int | None, float]:
    """Euclidean norm of the shared block (None) and of each expert's, summed in float64 and in name order."""
    squares: dict[int | None, float] = {None: 0.0}
    for name in sorted(update):
        expert = expert_of(name)
        squares[expert] = squares.get(expert, 0.0) + float(np.square(update[name], dtype=np.float64).sum())
    return {expert: float(np.sqrt(total)) for expert, total in squares.items()}
