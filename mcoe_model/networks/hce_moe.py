"""HCE-MoE: experts of three kinds, of which a router mixes the best two for every sample.

MCO-E Net, 2025, https://arxiv.org/abs/2505.12007, as in the authors' released code (no balancing loss, no noise).
What differs: every expert sees every sample and the unchosen get weight zero, so that nothing waits for the routing.
The gradients are the same, except that an expert which no sample chose gets zeros where the release leaves none. The
release attends over a sequence of length one, which is a value and an output map, and convolves it with three taps, of
which only the middle one acts: only these are here. The tensors that cannot act are in `MCOENet.dead`.

Letters: B batch, X size of the inputs, E experts, k chosen ones, c classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class Routing(NamedTuple):
    """How the router sent a batch."""

    gate: Tensor  # (B, E) softmax over all experts
    chosen: Tensor  # (B, k) int64, the best first


class LengthOneAttention(nn.Module):
    """Multi-head attention over a sequence of length one, where every weight is 1: (B, X) -> (B, X)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.value = nn.Linear(size, size)
        self.out = nn.Linear(size, size)
        # As PyTorch draws a packed (3X, X) projection of queries, keys and values.
        bound = (6 / (3 * size + size)) ** 0.5
        nn.init.uniform_(self.value.weight, -bound, bound)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, X)."""
        attended: Tensor = self.out(self.value(x))  # (B, X)
        return attended


class Router(nn.Module):
    """(B, X) -> one logit for each expert (B, E)."""

    def __init__(self, size: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.attention = LengthOneAttention(size)
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, hidden)
        self.down = nn.Linear(hidden, experts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, E)."""
        normed = self.norm(x + self.attention(x))  # (B, X)
        logits: Tensor = self.down(gelu(self.up(normed)))  # (B, E)
        return logits


class ConvolutionExpert(nn.Module):
    """The paper's focal expert: two layers, (B, X) -> (B, c)."""

    def __init__(self, size: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.up = nn.Linear(size, hidden)
        self.classifier = nn.Linear(hidden, classes)
        # As PyTorch draws a convolution of width 3, of which this is the middle tap.
        bound = (3 * size) ** -0.5
        nn.init.uniform_(self.up.weight, -bound, bound)
        nn.init.uniform_(self.up.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, c)."""
        logits: Tensor = self.classifier(gelu(self.up(x)))  # (B, c)
        return logits


class AttentionExpert(nn.Module):
    """(B, X) -> (B, c)."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.attention = LengthOneAttention(size)
        self.norm = nn.LayerNorm(size)
        self.classifier = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, c)."""
        logits: Tensor = self.classifier(self.norm(self.attention(x) + x))  # (B, c)
        return logits


class DeepBlock(nn.Module):
    """A wide linear detour with dropout and, as published, without nonlinearity: (B, X) -> (B, X)."""

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(size, hidden)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, X)."""
        detour: Tensor = self.down(self.dropout(self.up(x)))  # (B, X)
        return detour


class DeepExpert(nn.Module):
    """A stack of blocks whose shortcuts share one learned scale: (B, X) -> (B, c)."""

    def __init__(self, size: int, hidden: int, blocks: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DeepBlock(size, hidden, dropout) for _ in range(blocks))
        self.shortcut = nn.Parameter(torch.tensor(0.3))
        self.classifier = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, c)."""
        for block in self.blocks:
            x = block(x) + self.shortcut * x  # (B, X)
        logits: Tensor = self.classifier(x)  # (B, c)
        return logits


class HCEMoE(nn.Module):
    """Inputs (B, X) -> logits (B, c). Experts 0, 3, 6 are convolutions, 1, 4, 7 attention, 2, 5 deep, and so on."""

    def __init__(
        self,
        size: int,
        *,
        classes: int,
        experts: int,
        top_k: int,
        router_hidden: int,
        convolution_hidden: int,
        deep_hidden: int,
        deep_blocks: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = Router(size, router_hidden, experts)
        self.experts = nn.ModuleList()
        for number in range(experts):
            if number % 3 == 0:
                self.experts.append(ConvolutionExpert(size, convolution_hidden, classes))
            elif number % 3 == 1:
                self.experts.append(AttentionExpert(size, classes))
            else:
                self.experts.append(DeepExpert(size, deep_hidden, deep_blocks, classes, dropout))

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """(B, X) -> logits (B, c) and how they were routed."""
        routing = self.route(x)
        best = routing.gate.gather(1, routing.chosen)  # (B, k)
        weight = torch.zeros_like(routing.gate).scatter(1, routing.chosen, best)  # (B, E)
        weighted = torch.einsum("be,bec->bc", weight, self.all_experts(x))  # (B, c)
        return weighted / (best.sum(1, keepdim=True) + 1e-8), routing

    def route(self, x: Tensor) -> Routing:
        """The router alone, for (B, X)."""
        gate = self.router(x).softmax(1)  # (B, E)
        return Routing(gate, gate.topk(self.top_k, dim=1).indices)

    def all_experts(self, x: Tensor) -> Tensor:
        """What each expert says of each sample: (B, X) -> (B, E, c)."""
        return torch.stack([expert(x) for expert in self.experts], dim=1)  # (B, E, c)
