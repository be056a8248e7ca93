"""Reading the weights that others publish: safetensors, or PyTorch's own format without running anything in it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mcoe_model.errors import DataMissing, ModelInvalid


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Names to tensors of a ``.safetensors`` file, or of a ``.pth`` file with a state dict in it.

    A training checkpoint, which keeps its state dict under ``state_dict``, is read too. Raises DataMissing when there
    is no such file, ModelInvalid when it is damaged, holds anything but tensors and plain values, or no state dict.
    """
    if not path.is_file():
        raise DataMissing(f"no weights at {path}; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as fault:
        reason = re.split(r"[.\n]", str(fault), maxsplit=1)[0]  # torch goes on with how to run what is in it
        raise ModelInvalid(f"{path} is damaged or no weights file ({reason}); fetch it again") from fault
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelInvalid(f"{path} holds no state dict (names to tensors); save the state dict alone")
    return dict(content)
