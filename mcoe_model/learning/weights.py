"""Moving weights between a torch model and plain NumPy tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray

from mcoe_model.errors import ModelInvalid
from mcoe_model.model_file import Generation, ModelCard, Tensors, read_model, tensors_sha256
from mcoe_model.networks import McoeConfig, Network, build, find_config
from mcoe_model.update import TensorSpec, is_head


def tensors_of(model: Network) -> Tensors:
    """Copies of every parameter and buffer, by name."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def model_specs(model: Network) -> Mapping[str, TensorSpec]:
    """Shape and dtype of every parameter and buffer, in name order, without copying any."""
    if model not in _SPECS:
        state = model.state_dict().items()
        _SPECS[model] = {name: TensorSpec(tuple(v.shape), str(v.dtype).split(".")[-1]) for name, v in sorted(state)}
    return _SPECS[model]


#: A model's tensors never change their shapes, and a client asks for them with every task.
_SPECS: WeakKeyDictionary[Network, Mapping[str, TensorSpec]] = WeakKeyDictionary()


def copy_weights(model: Network, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Overwrite the named parameters and buffers in place. Raises ModelInvalid for an unknown name or another shape."""
    state = model.state_dict()
    faults = [
        f"{name}: {tensors[name].shape}, the model has {tuple(state[name].shape) if name in state else 'no such one'}"
        for name in sorted(tensors)
        if name not in state or tuple(state[name].shape) != tensors[name].shape
    ]
    if faults:
        raise ModelInvalid(f"{len(faults)} tensors do not fit preset {model.config.preset}: {'; '.join(faults[:5])}")
    with torch.no_grad():
        for name in tensors:
            state[name].copy_(torch.from_numpy(tensors[name].copy()))


def can_build(generation: Generation) -> bool:
    """Whether this program knows everything that a generation names, and makes the pictures that it was trained on."""
    config = find_config(generation.preset)
    ours = Generation(
        generation.preset,
        generation.backbone_sha256,
        generation.input_size,
        generation.normalisation,
        top_k=config.top_k if config else 0,
    )
    return config is not None and generation == ours


def can_recognise(generation: Generation) -> bool:
    """`can_build`, and of a model that encodes single pictures, as live recognition and kept lessons need it."""
    return can_build(generation) and isinstance(find_config(generation.preset), McoeConfig)


def load_model(path: Path) -> tuple[Network, ModelCard]:
    """The model of a file, in evaluation mode. Raises DataMissing or ModelInvalid."""
    tensors, card = read_model(path)
    return model_of(tensors, card, path), card


def model_of(tensors: Tensors, card: ModelCard, path: Path) -> Network:
    """The model of a file's tensors, in evaluation mode; ``path`` is the file. Raises ModelInvalid."""
    model = build(card.generation.preset, seed=0, size=card.generation.input_size)
    missing = sorted(model.state_dict().keys() - tensors.keys())
    if missing:
        raise ModelInvalid(f"{path} lacks {len(missing)} tensors of {card.generation.preset}: {', '.join(missing[:5])}")
    copy_weights(model, tensors)
    return model.eval()


def backbone_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """The hash of everything that makes features: backbone weights and their batch-normalisation statistics."""
    return tensors_sha256({name: value for name, value in tensors.items() if not is_head(name)})
