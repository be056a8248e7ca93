"""Re-Fed: the remembered clips stay that move a personalised informative model most.

Li et al. 2024, "Towards Efficient Replay in Federated Incremental Learning", https://arxiv.org/abs/2403.05890, section
3.2. The personalised informative model v takes s steps on the earlier clips, tied to the global model w (equation 3):
v <- v - rate x (gradient of the loss + q (v - w)) with q = (1 - lambda) / (2 lambda). A clip's importance is
I = sum over p = 1..s of 1/p x ||gradient of its loss at v_p||^2 (equations 4 and 5), and those with the largest stay.

What differs: v begins at w each time, and is not kept, since it would count against the memory's limit; the gradient in
a step is the mean over the clips, not the sum, so that ``rate`` does not depend on how many there are; only the head
learns; choosing comes at a lesson's end, not at the next one's begin, so that the limit holds at any time. In a
round, w is the model that the round began from, which is there anyway; alone on a device it is the one that the device
began from, whose head is kept for this alone and counts against the limit.

Letters: N clips.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from mcoe_model.learning.method import head_bytes
from mcoe_model.learning.replay import Exemplar, ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.networks import Network
from mcoe_model.update import is_head


@dataclass(frozen=True, eq=False)
class Importance:
    """``world`` is w; ``mix`` is lambda: 1 knows the device alone, towards 0 the global model alone.

    ``of_round``: w is a round's model, which nobody keeps for this.
    """

    world: Network
    mix: float = 0.5
    steps: int = 3
    rate: float = 0.05
    of_round: bool = False

    @property
    def size_bytes(self) -> int:
        """What is kept for it beside the model that runs."""
        return 0 if self.of_round else head_bytes(self.world)

    def keep(self, memory: ReplayMemory, new: Sequence[Exemplar]) -> ReplayMemory:
        """The memory with the most important of all these clips, as many as it has room for."""
        everything = (*memory.exemplars, *(exemplar for exemplar in new if exemplar.name not in memory.names))
        room = memory.limit_bytes // max((exemplar.size_bytes for exemplar in everything), default=1)
        if len(everything) <= room:
            return memory.add(new)
        most = np.argsort(-self.of(everything), kind="stable")[:room]  # (room,)
        return replace(memory, exemplars=()).add(everything[position] for position in most)

    def of(self, exemplars: Sequence[Exemplar]) -> NDArray[np.float64]:
        """The importance (N,) of clips."""
        samples = ReplaySamples(ReplayMemory("scored", 2**62, tuple(exemplars)))
        model = copy.deepcopy(self.world).eval()
        trained = [p for name, p in model.named_parameters() if is_head(name) and p.requires_grad]
        anchor = [parameter.detach().clone() for parameter in trained]
        tie = (1 - self.mix) / (2 * self.mix)
        importance = np.zeros(len(exemplars))
        for step in range(1, self.steps + 1):
            total = [torch.zeros_like(parameter) for parameter in trained]
            for position in range(len(exemplars)):
                logits, _ = model.classify(samples.ends([position]))  # (1, c)
                loss = cross_entropy(logits, samples.targets([position]))
                gradients = torch.autograd.grad(loss, trained, allow_unused=True)
                squared = 0.0
                for whole, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        squared += float(gradient.double().square().sum())
                        whole.add_(gradient, alpha=1 / len(exemplars))
                importance[position] += squared / step
            with torch.no_grad():
                for parameter, gradient, start in zip(trained, total, anchor, strict=True):
                    parameter.sub_(gradient + tie * (parameter - start), alpha=self.rate)
        return importance
