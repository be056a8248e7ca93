"""Loading CMFNet's published weights: the arrays of its Keras model, in the order that Keras gives them.

Keras numbers layers as they are made, so their names say nothing; the order of ``model.get_weights()`` does. Kernels
there have their inputs first (a convolution its places, inputs, outputs), and the recurrent layer's gates are in the
order update, reset, candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mcoe_model.errors import DataMissing, ModelInvalid, SettingsError
from mcoe_model.networks.cmfnet import CMFNet


class _Place(NamedTuple):
    """A parameter that takes a published array, and how the array is arranged for it."""

    name: str
    arrange: Callable[[Tensor], Tensor]


def read_keras_weights(path: Path) -> list[Tensor]:
    """The arrays of ``numpy.savez(path, *model.get_weights())``, in order.

    Raises DataMissing when there is no such file, ModelInvalid when it is damaged or holds anything else.
    """
    if not path.is_file():
        raise DataMissing(f"no weights at {path}; write them with numpy.savez({path.name!r}, *model.get_weights())")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [torch.from_numpy(stored[f"arr_{number}"]).float() for number in range(len(stored.files))]
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as fault:
        says = str(fault).split("\n", 1)[0]
        raise ModelInvalid(f"{path} does not hold arr_0, arr_1, ... as numpy.savez writes them ({says})") from fault


def from_keras(weights: Sequence[Tensor], model: CMFNet, *, label_order: Sequence[str]) -> None:
    """Copy the published model's weights, in the order of ``model.get_weights()``, into ``model``.

    ``label_order`` names the classes of the published output; its last layer is permuted from it to the model's own.
    Raises SettingsError when it is no permutation of them, ModelInvalid when there are more or fewer arrays or their
    shapes differ; nothing is copied then.
    """
    classes = model.config.classes
    if sorted(label_order) != sorted(classes):
        raise SettingsError([f"label order {', '.join(label_order)} does not name each of {', '.join(classes)} once"])
    places = _places(model, [list(label_order).index(name) for name in classes])
    if len(weights) != len(places):
        raise ModelInvalid(f"not the weights of a CMFNet: {len(weights)} arrays in place of {len(places)}")
    own, arranged, faults = model.state_dict(), dict[str, Tensor](), list[str]()
    for number, (array, taking) in enumerate(zip(weights, places, strict=True)):
        for name, arrange in taking:
            try:
                arranged[name] = arrange(array)
            except (RuntimeError, IndexError):
                arranged[name] = array[:0]  # it has too few dimensions, or its sizes do not divide
            if arranged[name].shape != own[name].shape:
                faults.append(f"array {number}, {tuple(array.shape)}, for {name}, {tuple(own[name].shape)}")
    if faults:
        raise ModelInvalid(f"not the weights of this CMFNet: {len(faults)} of another shape ({'; '.join(faults[:4])})")
    with torch.no_grad():
        for name, values in arranged.items():
            own[name].copy_(values)


def _places(model: CMFNet, rows: Sequence[int]) -> list[tuple[_Place, ...]]:
    """Who takes each published array, in Keras's order. ``rows`` are the outputs in our order of classes."""
    filters, attention = model.config.filters, "backbones.attention"
    found = [
        *(place for name in ("wide", "narrow", "joint") for place in _layer(f"backbones.{name}", _convolution)),
        *(place for which in ("mean", "largest") for layer in ("down", "up")
          for place in _layer(f"{attention}.{which}.{layer}", _transposed)),
        *_layer(f"{attention}.places", _convolution),
        # The inputs of a step are in the order h, w, f there, and f, h, w here.
        *_layer("dense_1", lambda kernel: kernel.mT.reshape(kernel.shape[1], -1, filters).mT.flatten(1)),
        *_layer("dense_2", _transposed),
        (_Place("gru.weight_ih_l0", lambda kernel: _gates(kernel.mT)),),
        (_Place("gru.weight_hh_l0", lambda kernel: _gates(kernel.mT)),),
        (
            _Place("gru.bias_ih_l0", lambda both: _gates(both[0])),
            _Place("gru.bias_hh_l0", lambda both: _gates(both[1])),
        ),
        *(place for head in range(len(model.heads)) for name in ("query", "key", "value", "out")
          for place in _layer(f"heads.{head}.{name}", _transposed)),
        *_layer("dense_3", _transposed),
        *_layer("dense_4", _transposed),
        (_Place("classifier.weight", lambda kernel: kernel.mT[rows]),),
        (_Place("classifier.bias", lambda bias: bias[rows]),),
    ]  # fmt: skip
    return found


def _layer(name: str, arrange: Callable[[Tensor], Tensor]) -> list[tuple[_Place, ...]]:
    return [(_Place(f"{name}.weight", arrange),), (_Place(f"{name}.bias", lambda bias: bias),)]


def _convolution(kernel: Tensor) -> Tensor:
    """(T, H, W, inputs, outputs) -> (outputs, inputs, T, H, W)."""
    return kernel.permute(4, 3, 0, 1, 2)


def _transposed(kernel: Tensor) -> Tensor:
    return kernel.mT


def _gates(rows: Tensor) -> Tensor:
    """(3U, ...) with the gates update, reset, candidate -> reset, update, candidate, as PyTorch has them."""
    update, reset, candidate = rows.chunk(3)
    return torch.cat([reset, update, candidate])
