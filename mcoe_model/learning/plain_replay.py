"""Experience replay: as many remembered clips as new ones in every step.

Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning", https://arxiv.org/abs/1902.10486, algorithm 1.
What differs: the memory holds features and is stratified (`mcoe_model.learning.replay`); it changes between trainings,
not between steps; new and remembered clips go through the head one after the other, which has no batch statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator
from torch import Tensor
from torch.nn.functional import cross_entropy

from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.networks import Network, Routing


@dataclass(frozen=True)
class PlainReplay:
    """Every remembered clip of a step weighs as much as a new one, also where fewer are remembered than are new."""

    samples: ReplaySamples

    def term(self, model: Network, size: int, draws: Generator) -> tuple[Tensor, Routing] | None:
        positions = self.samples.draw(size, draws)
        if not positions:
            return None
        logits, routing = model.classify(self.samples.ends(positions))  # (B, c)
        return cross_entropy(logits, self.samples.targets(positions)) * (len(positions) / size), routing
