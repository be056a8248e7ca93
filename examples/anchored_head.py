"""A method against forgetting of one's own: the head is held to where it began.

Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", the L2-SP penalty
(https://arxiv.org/abs/1802.01483, equation 2). Differs: the anchor is the base model, for every lesson.

    python simulations/conformance.py method examples/anchored_head.py:AnchoredHead
    python simulations/continual.py --stream emotions --methods examples/anchored_head.py:AnchoredHead --out runs/own
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.method import Batch, ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Network
from mcoe_model.update import is_head

STRENGTH = 0.01


class AnchoredHead:
    """Keeps the base's head, and nothing of any clip (`mcoe_model.learning.method.Retention`)."""

    def __init__(self, base: Network, limit_bytes: int) -> None:
        head = ((name, value) for name, value in base.named_parameters() if is_head(name))
        self._anchor = {name: value.detach().clone() for name, value in head if not name.startswith("dead.")}

    @property
    def size_bytes(self) -> int:
        return sum(value.nbytes for value in self._anchor.values())

    def method(self, model: Network) -> ContinualMethod:
        return Pull(self._anchor)

    def after(self, model: Network, samples: Samples, lightings: Sequence[str]) -> AnchoredHead:
        return self


class Pull(ContinualMethod):
    """Adds STRENGTH / 2 times the squared distance to the anchor to the loss of every step."""

    def __init__(self, anchor: dict[str, Tensor]) -> None:
        self._anchor = anchor

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, None]:
        now = dict(model.named_parameters())
        squares = [(now[name] - value).square().sum() for name, value in self._anchor.items()]
        return STRENGTH / 2 * sum(squares[1:], start=squares[0]), None
