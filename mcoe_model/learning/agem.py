"""A-GEM: a step may not make the remembered clips worse, to first order.

Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", https://arxiv.org/abs/1812.00420, equation 11: where the
gradient g of the new clips and the gradient r of remembered ones point apart, g . r < 0, the step goes along
g - (g . r / r . r) r. What differs: the memory is that of replay, level over strata and with a fixed limit, in place of
one part for each task; and the corrected gradient goes into AdamW, whose step is not parallel to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch.nn.functional import cross_entropy

from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.networks import Network, Routing


@dataclass(frozen=True)
class AveragedGradients(ContinualMethod):
    """The gradient r is that of as many remembered clips as there are new ones, drawn anew in every step."""

    samples: ReplaySamples

    def correct(self, model: Network, size: int, draws: Generator) -> Routing | None:
        positions = self.samples.draw(size, draws)
        if not positions:
            return None
        logits, routing = model.classify(self.samples.ends(positions))  # (B, c)
        loss = cross_entropy(logits, self.samples.targets(positions))
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        references = torch.autograd.grad(loss, trained, allow_unused=True)
        pairs = [(p.grad, r) for p, r in zip(trained, references, strict=True) if p.grad is not None and r is not None]
        along = sum(float((g.double() * r.double()).sum()) for g, r in pairs)
        if along >= 0:
            return None
        factor = along / sum(float(r.double().square().sum()) for _, r in pairs)
        for gradient, reference in pairs:
            gradient.sub_(reference, alpha=factor)
        return Routing(routing.gate.detach(), routing.chosen)
