"""MCIB: the fusion of both modalities by cross attention, gated by how much their tokens agree.

MCO-E Net, 2025, https://arxiv.org/abs/2505.12007, as in the authors' released code. What differs: both attentions run
as one call that never holds the L x L weights.

Letters: B batch, L tokens, d channels, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Trace(NamedTuple):
    """What the block computes on the way to its output."""

    frame: Tensor  # (B, L, d) projected
    event: Tensor  # (B, L, d) projected
    frame_asks: Tensor  # (B, L, d) queries from frames, content from events
    event_asks: Tensor  # (B, L, d) queries from events, content from frames
    gate: Tensor  # (B, L, 1)


class MCIB(nn.Module):
    """Tokens of frames and of events, each (B, L, d) -> fused tokens (B, L, d)."""

    def __init__(self, channels: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.frame = nn.Linear(channels, channels)
        self.event = nn.Linear(channels, channels)
        self.in_proj = nn.Linear(channels, 3 * channels)  # queries, keys, values
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, frame: Tensor, event: Tensor) -> Tensor:
        """(B, L, d) twice -> (B, L, d)."""
        parts = self.trace(frame, event)
        attended = torch.lerp(parts.event_asks, parts.frame_asks, parts.gate)  # (B, L, d)
        return attended + (parts.frame + parts.event) / 2  # (B, L, d)

    def trace(self, frame: Tensor, event: Tensor) -> Trace:
        """Projections, both attentions and the gate."""
        r, e = self.frame(frame), self.event(event)  # (B, L, d) twice
        both = self.in_proj(torch.cat([r, e]))  # (2B, L, 3d)
        heads = both.reshape(*both.shape[:2], 3 * self.heads, -1).transpose(1, 2)  # (2B, 3h, L, d/h)
        q, k, v = heads.chunk(3, dim=1)  # (2B, h, L, d/h) thrice
        swap = frame.shape[0]  # frames ask the events, and events the frames
        content = scaled_dot_product_attention(q, k.roll(swap, 0), v.roll(swap, 0))  # (2B, h, L, d/h)
        a, b = self.out_proj(content.transpose(1, 2).flatten(2)).chunk(2)  # (B, L, d) twice
        gate = torch.sigmoid((r * e).sum(-1, keepdim=True))  # (B, L, 1)
        return Trace(r, e, a, b, gate)
