"""DER++: remembered clips are to be recognised, and to be spoken of as they were when they were learned.

Buzzega et al. 2020, "Dark Experience for General Continual Learning", https://arxiv.org/abs/2004.07211, section 3:
alpha x MSE(z(x'), z') + beta x CE(z(x''), y''), with two independent draws, as in the authors' code
(https://github.com/aimagelab/mammoth, models/derpp.py). What differs from that code:

- Logits are stored at the end of the training that brought a clip into the memory, in evaluation mode, of the very
  features that are stored; there in the step that saw it first, in training mode, and of an augmented picture.
- Clips come into the memory between trainings, not between steps, and strata are kept level (`learning.replay`).
- Both draws go through the head together, which has no batch statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.networks import Network, Routing


@dataclass(frozen=True)
class DarkExperience:
    """``alpha`` weighs the distance to the stored logits, ``beta`` the recognition."""

    samples: ReplaySamples
    alpha: float
    beta: float

    def term(self, model: Network, size: int, draws: Generator) -> tuple[Tensor, Routing] | None:
        held, named = self.samples.draw(size, draws), self.samples.draw(size, draws)
        if not held:
            return None
        logits, routing = model.classify(self.samples.ends(held + named))  # (2B, c)
        distance = mse_loss(logits[: len(held)], self.samples.logits(held))
        return self.alpha * distance + self.beta * cross_entropy(
            logits[len(held) :], self.samples.targets(named)
        ), routing
