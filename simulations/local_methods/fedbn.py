"""FedBN: batch normalisations, with their parameters and their statistics, are each client's own.

Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", section 4
(https://arxiv.org/abs/2102.07623): a client begins a round with the tensors that it is sent and its own batch
normalisations, and the server averages everything else. Differs: they score the clients alone. Here the server's copy
stays the base model's, and that is what people have who are not in the fleet.

A message has a place for every tensor that is trained, so an update holds zeros for what stays with its client.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mcoe_model.model_file import Tensors


def batch_norm_names(names: Iterable[str]) -> frozenset[str]:
    """The tensors of batch normalisations among a model's: those that stand beside a running mean."""
    there = frozenset(names)
    return frozenset(name for name in there if f"{name.rpartition('.')[0]}.running_mean" in there)


def withheld(update: Tensors) -> Tensors:
    """The update as it is sent."""
    own = batch_norm_names(update)
    return {name: np.zeros_like(value) if name in own else value for name, value in update.items()}
