"""Named tensors as one piece of bytes, the form in which they travel. NumPy only; no pickle.

All tensors of a message are one safetensors file, and so one array of Flower's: it sends, stores and confirms every
array of a message by itself, which costs more than the tensors when there are hundreds of small ones.
"""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from mcoe_model.model_file import Tensors

#: What Flower calls the serialisation type of such an array.
STYPE = "safetensors"


def pack(tensors: Tensors) -> bytes:
    """The tensors in name order and C order: the same tensors give the same bytes."""
    return bytes(save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}))


def unpack(content: bytes) -> Tensors:
    """The tensors of `pack`. Raises ValueError for anything else."""
    try:
        return dict(load(content))
    except Exception as fault:  # the library's own errors, and NumPy's for a dtype that it does not know
        raise ValueError(f"the tensors cannot be read: {fault}") from fault
