"""The replay memory as tensors: batches drawn from it, and what is to be kept of clips that were learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.replay import Exemplar, ReplayMemory
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Features, Network
from mcoe_model.streams import stream


class ReplaySamples:
    """The entries of a memory by position 0..len-1, in the memory's order."""

    def __init__(self, memory: ReplayMemory) -> None:
        self.names = memory.names
        self.labels = np.array([exemplar.emotion for exemplar in memory.exemplars], np.int64)  # (N,)
        self._ends = [exemplar.ends for exemplar in memory.exemplars]
        self._logits = [exemplar.logits for exemplar in memory.exemplars]

    def draw(self, size: int, draws: Generator) -> list[int]:
        """``size`` different positions, each set of them equally likely; all of them when there are no more."""
        count = len(self.names)
        return [int(position) for position in draws.choice(count, size=min(size, count), replace=False)]

    def ends(self, positions: Sequence[int]) -> Features:
        """The features of their windows' four pictures, float32 (B, F) each."""
        stacked = torch.from_numpy(np.stack([self._ends[p] for p in positions], axis=1).astype(np.float32))  # (4, B, F)
        return tuple(stacked)

    def targets(self, positions: Sequence[int]) -> Tensor:
        """Their labels (B,)."""
        return torch.from_numpy(self.labels[list(positions)])

    def logits(self, positions: Sequence[int]) -> Tensor:
        """What was said of them when they came into the memory: (B, c)."""
        return torch.from_numpy(np.stack([self._logits[p] for p in positions]))


def exemplars_of(model: Network, samples: Samples, *, lightings: Sequence[str], day: int) -> tuple[Exemplar, ...]:
    """What is to be kept of clips that the model has just learned: of each a random window, and what it says of that.

    ``lightings`` has one of STRATUM_LIGHTINGS for each clip; ``day`` is today. The model must be in evaluation mode,
    its backbones those of the generation. A clip is one batch, and its window comes from its name: so its entry is the
    same bits whatever else is kept. Raises DataInvalid where features or logits are not finite or beyond float16.
    """
    kept = []
    with torch.inference_mode():
        for position, (name, lighting) in enumerate(zip(samples.names, lightings, strict=True)):
            window = model.config.sampling.draw(samples.lengths[position], stream("replay window", name))
            features = samples.head_inputs(model, [position], window[None], None)  # (1, F) each
            ends = tuple(end.half() for end in features)
            logits = model.classify(tuple(end.float() for end in ends))[0][0]  # (c,)
            emotion = int(samples.labels[position])
            kept.append(Exemplar(name, emotion, lighting, day, torch.cat(ends).numpy(), logits.numpy()))
    return tuple(kept)
