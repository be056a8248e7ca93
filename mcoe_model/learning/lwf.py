"""LwF: of the new clips the model is to say what it said of them before the lesson, beside their labels.

Li & Hoiem 2016, "Learning without Forgetting", https://arxiv.org/abs/1606.09282, equations 2 and 3 with temperature 2.
What differs: there old and new classes have heads of their own, here every emotion is both old and new, so one head
learns and is distilled; the cross-entropy with the old answers is written as their divergence (the same gradient)
times the square of the temperature (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2), so that
``strength`` does not depend on it; and the old model speaks in evaluation mode. In rounds it is the one that the
device's own last lesson left, not the one that the round begins from.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.functional import kl_div

from mcoe_model.learning.method import Batch, ContinualMethod, head_bytes
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Network, Routing

TEMPERATURE = 2.0


@dataclass(frozen=True, eq=False)
class Distilled:
    """The head of the model as it was when the lesson began; its backbones are those of the one that runs."""

    teacher: Network
    strength: float

    @property
    def size_bytes(self) -> int:
        return head_bytes(self.teacher)

    def method(self, model: Network) -> ContinualMethod | None:
        return Distillation(self.teacher.eval(), self.strength)

    def after(self, model: Network, samples: Samples, lightings: Sequence[str]) -> Distilled:
        return Distilled(copy.deepcopy(model), self.strength)


@dataclass(frozen=True, eq=False)
class Distillation(ContinualMethod):
    """The term of one lesson."""

    teacher: Network
    strength: float

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, Routing | None] | None:
        with torch.no_grad():
            told = (self.teacher.classify(new.features)[0] / TEMPERATURE).log_softmax(1)  # (B, c)
        said = (new.logits / TEMPERATURE).log_softmax(1)  # (B, c)
        divergence = kl_div(said, told, reduction="batchmean", log_target=True)
        return self.strength * TEMPERATURE**2 * divergence, None
