"""Named tensors as one piece of bytes, the form in which they travel. NumPy only; no pickle.

All tensors of a message are one safetensors file, and so one array of Flower's: it sends, stores and confirms every
array of a message by itself, which costs more than the tensors when there are hundreds of small ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from mcoe_model.model_file import Tensors, tensors_sha256

#: What Flower calls the serialisation type of such an array.
STYPE = "safetensors"


def pack(tensors: Tensors) -> bytes:
    """The tensors in name order and C order: the same tensors give the same bytes."""
    return bytes(save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}))


def pack_with(tensors: Tensors, said: dict[str, str]) -> bytes:
    """The tensors with words beside them, for a file of ours: nothing of the kind is sent."""
    return bytes(save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}, metadata=said))


def unpack_with(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """What `pack_with` packed. Raises ValueError for anything else."""
    tensors = unpack(content)
    length = int.from_bytes(content[:8], "little")  # the library tells the words of files only
    return tensors, dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))


def unpack(content: bytes) -> Tensors:
    """The tensors of `pack`. Raises ValueError for anything else."""
    try:
        return dict(load(content))
    except Exception as fault:  # the library's own errors, and NumPy's for a dtype that it does not know
        raise ValueError(f"the tensors cannot be read: {fault}") from fault


@dataclass(frozen=True)
class Payload:
    """The tensors of a message, read-only, and their hash."""

    tensors: Tensors
    sha256: str

    @staticmethod
    def of(tensors: Tensors) -> Payload:
        views = {name: array.view() for name, array in tensors.items()}
        for view in views.values():
            view.flags.writeable = False
        return Payload(views, tensors_sha256(views))


class PayloadReader:
    """Unpacks payloads, and does not do it again for the same bytes: a simulation's clients share a process."""

    def __init__(self) -> None:
        self._content = b""
        self._payload = Payload.of({})

    def read(self, content: bytes) -> Payload:
        """Raises ValueError for anything but packed tensors."""
        if content != self._content:
            self._payload = Payload.of(unpack(content))
            self._content = content
        return self._payload
