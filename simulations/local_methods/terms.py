"""What the methods share that add a term over the head's weights to the loss."""

from __future__ import annotations

from torch import Tensor

from mcoe_model.networks import Network
from mcoe_model.update import is_head


def trained_parameters(model: Network) -> dict[str, Tensor]:
    """The parameters that are trained with frozen backbones, by name."""
    return {
        name: value for name, value in model.named_parameters() if is_head(name) and not name.startswith("dead.")
    }
