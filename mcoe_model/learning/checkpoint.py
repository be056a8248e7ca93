"""Resumable training: model, optimiser moments and epoch in one safetensors file, switched by rename."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import nn

from mcoe_model.files import write_bytes


class Checkpoint:
    """Saves at most every ``interval`` seconds, because the state of a large model takes time to write.

    When it is saved does not matter to the result: everything random in an epoch depends on the epoch's number alone.
    """

    def __init__(self, path: Path, *, interval: float = 30.0) -> None:
        self.path = path
        self.interval = interval
        self._saved = time.monotonic()

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Load what was saved, if anything; returns the number of epochs that are done."""
        if not self.path.exists():
            return 0
        arrays = load_file(self.path)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                # A moment must lie in memory as its parameter does: the fused optimiser goes through both by address.
                like = parameters[int(index)]
                placed = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
                moments.setdefault(int(index), {})[key] = placed.detach()
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        return int(tensors["epochs"])

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, epochs: int, *, last: bool) -> None:
        """Save the state after this many epochs, unless the last save was just now; after the last epoch remove it."""
        if last:
            self.path.unlink(missing_ok=True)
            return
        if time.monotonic() - self._saved < self.interval:
            return
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        tensors["epochs"] = torch.tensor(epochs)
        # safetensors writes an array's memory as it lies, so every array has to lie in C order.
        arrays = {name: np.asarray(value.detach().cpu().numpy(), order="C") for name, value in tensors.items()}
        write_bytes(self.path, bytes(save(arrays)))
        self._saved = time.monotonic()
