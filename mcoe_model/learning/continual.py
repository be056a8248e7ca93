"""Learning that does not undo what was learned before: what a method is to the training loop, and which are there."""

from __future__ import annotations

from typing import Protocol

from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.der import DarkExperience
from mcoe_model.learning.plain_replay import PlainReplay
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.learning.settings import ReplaySettings
from mcoe_model.networks import Network, Routing


class ContinualMethod(Protocol):
    """What is added to the loss of every step."""

    def term(self, model: Network, size: int, draws: Generator) -> tuple[Tensor, Routing] | None:
        """A term of the loss (), and how the clips behind it were routed; None when there is nothing to add.

        ``size`` is the number of new clips in this step; ``draws`` are the epoch's random numbers, from which nothing
        else is drawn.
        """
        ...


def continual_method(settings: ReplaySettings, memory: ReplayMemory) -> ContinualMethod | None:
    """The method that the settings ask for, over this memory; None for ``none`` and for an empty memory."""
    if settings.method == "none" or not memory.exemplars:
        return None
    samples = ReplaySamples(memory)
    if settings.method == "replay":
        return PlainReplay(samples)
    return DarkExperience(samples, settings.alpha, settings.beta)
