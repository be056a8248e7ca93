"""What a method against forgetting is to the training loop, and what it keeps between two trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Features, Network, Routing
from mcoe_model.update import is_head


class Batch(NamedTuple):
    """The new clips of one step, and what the model has just said of them in training mode."""

    features: Features  # what the head takes, batch first
    logits: Tensor  # (B, c)
    labels: Tensor  # (B,)


class ContinualMethod:
    """What a method does in every step of one training: a term of the loss, a correction of the gradient, or nothing.

    ``draws`` are the epoch's random numbers, from which nothing else is drawn.
    """

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, Routing | None] | None:
        """A term of the loss (), and how the clips behind it were routed, if there are any; None for no term."""
        return None

    def correct(self, model: Network, size: int, draws: Generator) -> Routing | None:
        """Change the parameters' gradients in place, after the backward pass over ``size`` new clips.

        Returns how the clips were routed whose gradient came in, or None: their experts were used, too.
        """
        return None


class Retention(Protocol):
    """What a method keeps on the device between two lessons; a value.

    It is task-free: a lesson is a few clips that were labelled, and nothing says whether a new domain begins with it.
    """

    @property
    def size_bytes(self) -> int:
        """What is kept, beside the model that runs."""
        ...

    def method(self, model: Network) -> ContinualMethod | None:
        """The method in the next lesson, which begins from this model; None where there is nothing to do.

        Alone it is the model that the last lesson left; in rounds the lessons of others went into it too.
        """
        ...

    def after(self, model: Network, samples: Samples, lightings: Sequence[str]) -> Retention:
        """What is kept once these clips, each of one of STRATUM_LIGHTINGS, were learned. In evaluation mode."""
        ...


def head_bytes(model: Network) -> int:
    """Bytes that a second model counts whose backbones are those of the one that runs: its head's."""
    return sum(value.nbytes for name, value in model.named_parameters() if is_head(name))
