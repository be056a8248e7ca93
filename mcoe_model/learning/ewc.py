"""EWC, online: a parameter that mattered to earlier lessons is held near the value that it had after the last one.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", https://arxiv.org/abs/1612.00796,
equation 3, in the form with one anchor: Schwarz et al. 2018, "Progress & Compress", https://arxiv.org/abs/1805.06370,
section 3.2: the loss has strength / 2 x sum of F (theta - theta*)^2, and after a lesson F becomes decay x F + F_lesson.
F_lesson is the diagonal of the Fisher information, the mean over the lesson's clips of the squared gradients of
log p(y), with y over all emotions as the model weighs them, which is exact (no draw of y, no label).

What differs: nothing says where a task ends, so every lesson is one. One random window of each clip stands for it. In
a step an expert that no clip chose stays where it is, and is not drawn towards its anchor either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.method import Batch, ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Network, Routing
from mcoe_model.streams import stream
from mcoe_model.update import is_head

#: What a lesson leaves of the information of those before it; Schwarz et al. use 0.95 and more.
DECAY = 0.95


@dataclass(frozen=True, eq=False)
class Consolidation(ContinualMethod):
    """Anchor theta* and Fisher information F by parameter name, of the head; the information is 0 at first."""

    strength: float
    anchor: dict[str, Tensor] = field(repr=False)
    information: dict[str, Tensor] = field(repr=False)
    lessons: int = 0

    @staticmethod
    def begin(model: Network, strength: float) -> Consolidation:
        """Before the first lesson: nothing is known of what mattered to the base model."""
        anchor = {name: value.detach().clone() for name, value in _head(model)}
        return Consolidation(strength, anchor, {name: torch.zeros_like(value) for name, value in anchor.items()})

    @property
    def size_bytes(self) -> int:
        return sum(2 * value.nbytes for value in self.anchor.values())

    def method(self, model: Network) -> ContinualMethod | None:
        return self if self.lessons else None

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, Routing | None] | None:
        moved = [(self.information[name] * (value - self.anchor[name]).square()).sum() for name, value in _head(model)]
        return self.strength / 2 * torch.stack(moved).sum(), None

    def after(self, model: Network, samples: Samples, lightings: Sequence[str]) -> Consolidation:
        found = fisher_information(model, samples)
        information = {name: DECAY * old + found[name] for name, old in self.information.items()}
        anchor = {name: value.detach().clone() for name, value in _head(model)}
        return replace(self, anchor=anchor, information=information, lessons=self.lessons + 1)


def fisher_information(model: Network, samples: Samples) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of the head over these clips, by parameter name. In evaluation mode."""
    names, parameters = zip(*_head(model), strict=True)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for position, clip in enumerate(samples.names):
        window = model.config.sampling.draw(samples.lengths[position], stream("fisher window", clip))
        with torch.no_grad():
            features = samples.head_inputs(model, [position], window[None], None)  # (1, F) each
        log_p = model.classify(features)[0][0].log_softmax(0)  # (c,)
        for emotion in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[emotion], parameters, retain_graph=True, allow_unused=True)
            weight = float(log_p[emotion].detach().exp()) / len(samples.names)
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    total[place].addcmul_(gradient, gradient, value=weight)
    return dict(zip(names, total, strict=True))


def _head(model: Network) -> list[tuple[str, Tensor]]:
    return [(n, p) for n, p in model.named_parameters() if is_head(n) and p.requires_grad]
