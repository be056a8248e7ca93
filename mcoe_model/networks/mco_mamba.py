"""MCO-Mamba: two modalities scanned in both directions, each seeing the other through shared input and output terms.

MCO-E Net, 2025, https://arxiv.org/abs/2505.12007 (the joint optimisation scheme), as in the authors' released code.
What differs: the released backward pass is wrong (it returns a weight as its own gradient, and none for the skip); this
one is exact. Parameters that belong together are one tensor with an axis for direction (0 forward, 1 backward) and one
for modality (0 frame, 1 event). Tensors the release has and never reads are not here but in `MCOENet.dead`.

Letters: B batch, L tokens, d channels of a token, D = expand d inner channels, N states, K taps of the convolution,
R rank of the step size, P = R + 2N; r = 2 directions and m = 2 modalities lead, G = rm scans.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus

from mcoe_model.networks.selective_scan import Method, selective_scan


class Trace(NamedTuple):
    """What the block computes on the way to its output; direction 1 is in flipped time, as its scan sees it."""

    xz: Tensor  # (r, m, 2D, B, L) inner channels x, then gates z
    u: Tensor  # (r, m, D, B, L)
    parameters: Tensor  # (r, m, P, B, L) step size, B and C of each modality alone
    joint: Tensor  # (r, 2N, B, L) what both modalities add to B and C
    delta: Tensor  # (r, m, D, B, L)
    y: Tensor  # (r, m, D, B, L) scanned and gated


class MCOMamba(nn.Module):
    """Tokens of frames and of events, each (B, L, d) -> two of the same shape. The residual is the caller's."""

    def __init__(self, channels: int = 4, *, expand: int = 2, states: int = 16, taps: int = 4) -> None:
        super().__init__()
        inner = expand * channels
        self.states, self.rank = states, math.ceil(channels / 16)
        projected = self.rank + 2 * states
        self.in_proj = _uniform(2, 2 * inner, channels, fan_in=channels)  # (m, 2D, d)
        self.conv_weight = _uniform(2, 2, inner, 1, taps, fan_in=taps)  # (r, m, D, 1, K)
        self.conv_bias = _uniform(2, 2, inner, fan_in=taps)  # (r, m, D)
        self.x_proj = _uniform(2, 2, projected, inner, fan_in=inner)  # (r, m, P, D)
        self.joint = _uniform(2, 2 * states, 2 * projected, fan_in=2 * projected)  # (r, 2N, 2P): rows of B, then of C
        self.dt_weight = _uniform(2, 2, inner, self.rank, fan_in=self.rank)  # (r, m, D, R)
        self.dt_bias = nn.Parameter(_step_sizes(inner).repeat(2, 1))  # (m, D): both directions use the same
        levels = torch.arange(1.0, states + 1).log()  # (N,)
        self.A_log = nn.Parameter(levels.repeat(2, 2, inner, 1))  # (r, m, D, N)
        self.skip = nn.Parameter(torch.ones(2, 2, inner))  # (r, m, D)
        self.out_proj = _uniform(2, channels, inner, fan_in=inner)  # (m, d, D)

    def forward(self, frame: Tensor, event: Tensor, *, method: Method = "chunked") -> tuple[Tensor, Tensor]:
        """(B, L, d) twice -> (B, L, d) twice. ``method`` is `selective_scan`'s."""
        y = self.trace(frame, event, method=method).y  # (r, m, D, B, L)
        mean = (y[0] + y[1].flip(-1)) / 2  # (m, D, B, L)
        out = _project(self.out_proj, mean)  # (m, d, B, L)
        return out[0].permute(1, 2, 0), out[1].permute(1, 2, 0)  # (B, L, d) twice

    def trace(self, frame: Tensor, event: Tensor, *, method: Method = "chunked") -> Trace:
        """Both directions of both modalities, with everything computed on the way."""
        inner = self.skip.shape[-1]
        tokens = torch.stack([frame, event]).permute(0, 3, 1, 2)  # (m, d, B, L)
        forwards = _project(self.in_proj, tokens)  # (m, 2D, B, L)
        xz = torch.stack([forwards, forwards.flip(-1)])  # (r, m, 2D, B, L)
        x, z = xz[:, :, :inner], xz[:, :, inner:]  # (r, m, D, B, L) twice
        u = silu(self._convolve(x))  # (r, m, D, B, L)
        parameters = _project(self.x_proj, u)  # (r, m, P, B, L)
        joint = _project(self.joint, parameters.flatten(1, 2))  # (r, 2N, B, L)
        step, own = parameters[:, :, : self.rank], parameters[:, :, self.rank :]  # (r, m, R, B, L), (r, m, 2N, B, L)
        delta = softplus(_project(self.dt_weight, step) + self.dt_bias[:, :, None, None])  # (r, m, D, B, L)
        B, C = (own + joint[:, None]).flatten(0, 1).chunk(2, dim=1)  # (G, N, B, L) twice
        scanned = selective_scan(
            u.flatten(0, 1),  # (G, D, B, L)
            delta.flatten(0, 1),  # (G, D, B, L)
            -self.A_log.exp().flatten(0, 1),  # (G, D, N)
            B,
            C,
            self.skip.flatten(0, 1),  # (G, D)
            method=method,
        )  # (G, D, B, L)
        y = scanned.reshape(u.shape) * silu(z)  # (r, m, D, B, L)
        return Trace(xz, u, parameters, joint, delta, y)

    def _convolve(self, x: Tensor) -> Tensor:
        """Causal convolution along time, each channel with its own taps: (r, m, D, B, L) -> (r, m, D, B, L)."""
        taps, length = self.conv_weight.shape[-1], x.shape[-1]
        padded = pad(x, (taps - 1, 0))  # (r, m, D, B, L + K - 1)
        convolved = self.conv_bias[..., None, None]  # (r, m, D, 1, 1)
        for tap in range(taps):
            weight = self.conv_weight[..., tap, None]  # (r, m, D, 1, 1)
            convolved = torch.addcmul(convolved, weight, padded[..., tap : tap + length])  # (r, m, D, B, L)
        return convolved


def _project(weight: Tensor, x: Tensor) -> Tensor:
    """A linear layer for each of the leading indices: (..., O, I), (..., I, B, L) -> (..., O, B, L)."""
    projected = weight @ x.flatten(-2)  # (..., O, BL)
    return projected.reshape(*projected.shape[:-1], *x.shape[-2:])  # (..., O, B, L)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """PyTorch's default for linear layers and convolutions: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    return nn.Parameter(torch.empty(*shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


def _step_sizes(inner: int) -> Tensor:
    """Biases whose softplus is log-uniform in [0.001, 0.1], at least 0.0001. (D,)"""
    step = torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)).exp().clamp(min=1e-4)  # (D,)
    return step + torch.log(-torch.expm1(-step))  # (D,): inverse of softplus
