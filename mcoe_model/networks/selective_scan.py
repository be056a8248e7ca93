"""The selective scan: a linear recurrence whose decay, input and output change at every step.

Gu and Dao, "Mamba", 2023, https://arxiv.org/abs/2312.00752 (section 3.2, with the simplified Euler step for the input):
    h_t[d,n] = exp(delta_t[d] A[d,n]) h_{t-1}[d,n] + delta_t[d] B_t[n] u_t[d]
    y_t[d]   = sum_n C_t[n] h_t[d,n] + skip[d] u_t[d],        h_0 = 0.
What differs: several independent scans (one per modality and direction), each with its own A, run as one call.

Letters: G scans, D channels, N states, b batch, L steps; inside the chunked scan T steps of a chunk, K chunks,
W = G b K lanes. A, B and C are the tensors of those names in the paper.

Methods: ``chunked`` (default) cuts time into about sqrt(L) chunks of sqrt(L) steps, scans all chunks at once, passes
the state from chunk to chunk, and has a backward pass of its own. Both passes multiply decays only, each in [0, 1],
and never divide by one: nothing overflows, at any length. ``reference`` is the plain loop, one scan after another.
``mamba_ssm`` is the CUDA kernel of Mamba's authors. Nothing falls back from one to another.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from mcoe_model.errors import MissingExtra, SettingsError

Method = Literal["chunked", "reference", "mamba_ssm"]


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, *, method: Method = "chunked"
) -> Tensor:
    """Scan ``u`` (G, D, b, L) along its last axis; returns y (G, D, b, L).

    ``delta`` (G, D, b, L) is positive; ``A`` (G, D, N) is negative; ``B`` and ``C`` are (G, N, b, L); ``skip`` (G, D).
    Raises SettingsError for an unknown method, or for ``mamba_ssm`` on tensors that are not on a GPU, MissingExtra when
    that package is not installed.
    """
    if method == "chunked":
        scanned: Tensor = _ChunkedScan.apply(u, delta, A, B, C)  # type: ignore[no-untyped-call]  # (G, D, b, L)
    elif method == "reference":
        scanned = _reference(u, delta, A, B, C)  # (G, D, b, L)
    elif method == "mamba_ssm":
        scanned = _mamba_ssm(u, delta, A, B, C)  # (G, D, b, L)
    else:
        raise SettingsError([f"selective scan: no method {method!r} (known: chunked, reference, mamba_ssm)"])
    return scanned + skip[:, :, None, None] * u  # (G, D, b, L)


def _reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    scans = []
    for u_, delta_, A_, B_, C_ in zip(u, delta, A, B, C, strict=True):  # (D, b, L) twice, (D, N), (N, b, L) twice
        h = u.new_zeros(*A_.shape, u.shape[2])  # (D, N, b)
        steps = []
        for t in range(u.shape[3]):
            decay = torch.exp(delta_[:, None, :, t] * A_[:, :, None])  # (D, N, b)
            x = (delta_[:, :, t] * u_[:, :, t])[:, None] * B_[None, :, :, t]  # (D, N, b)
            h = decay * h + x  # (D, N, b)
            steps.append((h * C_[:, :, t]).sum(1))  # (D, b)
        scans.append(torch.stack(steps, -1))  # (D, b, L)
    return torch.stack(scans)  # (G, D, b, L)


def _mamba_ssm(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    kernel = _mamba_ssm_kernel(u.device)
    # The kernel knows groups of channels that share B and C: a scan is such a group.
    scanned = kernel(
        u.flatten(0, 1).transpose(0, 1).contiguous(),  # (b, GD, L)
        delta.flatten(0, 1).transpose(0, 1).contiguous(),  # (b, GD, L)
        A.flatten(0, 1),  # (GD, N)
        B.permute(2, 0, 1, 3).contiguous(),  # (b, G, N, L)
        C.permute(2, 0, 1, 3).contiguous(),  # (b, G, N, L)
    )  # (b, GD, L)
    return scanned.transpose(0, 1).reshape(u.shape)  # (G, D, b, L)


def _mamba_ssm_kernel(device: torch.device) -> Callable[..., Tensor]:
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError as fault:
        raise MissingExtra(
            f"selective scan: method mamba_ssm needs the package mamba-ssm ({fault}); "
            "install it beside a CUDA build of torch (pip install mamba-ssm), or use method chunked"
        ) from fault
    if device.type != "cuda":
        raise SettingsError([f"selective scan: method mamba_ssm needs tensors on a GPU, not on {device}; use chunked"])
    kernel: Callable[..., Tensor] = module.selective_scan_fn
    return kernel


class _ChunkedScan(torch.autograd.Function):
    """The chunked scan and its exact gradient, in the layout (T, N, D, W): the lanes are innermost and independent.

    The gradient g_t of the loss by h_t is itself such a scan, backwards in time: g_t = C_t dy_t + a_{t+1} g_{t+1},
    where a_t is the decay. Of the large tensors only the states are kept for it; the decays are computed again. Each
    pass reuses one large tensor as scratch, for allocating costs as much as computing here.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        u_, delta_, B_, C_ = (_to_lanes(tensor) for tensor in (u, delta, B, C))  # (T, D, W) twice, (T, N, W) twice
        A_ = A.permute(2, 1, 0).repeat_interleave(u_.shape[2] // len(u), dim=2)  # (N, D, W): each lane its scan's A
        decay = (delta_[:, None] * A_).exp_()  # (T, N, D, W)
        h = (delta_ * u_)[:, None] * B_[:, :, None]  # (T, N, D, W)
        _scan_forwards_(decay, h, chunks=_chunks(u.shape[3]))
        ctx.save_for_backward(u_, delta_, A_, B_, C_, h)
        ctx.batch, ctx.length = u.shape[2:]
        y = torch.mul(h, C_[:, :, None], out=decay).sum(1)  # (T, D, W)
        return _from_lanes(y, ctx.batch, ctx.length)  # (G, D, b, L)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, h = ctx.saved_tensors
        batch, length, chunks = ctx.batch, ctx.length, _chunks(ctx.length)
        dy = _to_lanes(gradients[0])  # (T, D, W)
        decay = (delta[:, None] * A).exp_()  # (T, N, D, W)
        g = dy[:, None] * C[:, :, None]  # (T, N, D, W)
        scratch = torch.empty_like(g)  # (T, N, D, W)
        _scan_backwards_(decay, g, scratch, chunks=chunks)
        dC = torch.mul(h, dy[:, None], out=scratch).sum(2)  # (T, N, W)
        dB = torch.mul(g, (delta * u)[:, None], out=scratch).sum(2)  # (T, N, W)
        dx = torch.mul(g, B[:, :, None], out=scratch).sum(1)  # (T, D, W): by delta_t u_t
        # By the exponent delta_t A: a_t h_{t-1} g_t, where a chunk's first step follows the last of the chunk before.
        before = _by_chunk(h[-1], chunks).roll(1, 0)  # (K, N, D, Gb)
        before[0] = 0.0
        g[1:] *= h[:-1]
        g[0] *= _by_lane(before)
        g *= decay  # (T, N, D, W)
        ddelta = torch.mul(g, A, out=scratch).sum(1) + dx * u  # (T, D, W)
        dA = torch.mul(g, delta[:, None], out=scratch).sum(0)  # (N, D, W)
        return (
            _from_lanes(dx * delta, batch, length),  # (G, D, b, L)
            _from_lanes(ddelta, batch, length),  # (G, D, b, L)
            dA.reshape(*dA.shape[:2], -1, batch * chunks).sum(3).permute(2, 1, 0),  # (G, D, N)
            _from_lanes(dB, batch, length),  # (G, N, b, L)
            _from_lanes(dC, batch, length),  # (G, N, b, L)
        )


def _scan_forwards_(decay: Tensor, x: Tensor, *, chunks: int) -> None:
    """In place: inputs x_t become states h_t = a_t h_{t-1} + x_t. Both (T, N, D, W); ``decay`` is overwritten."""
    for (reach_before, x_before), (a, x_t) in pairwise(zip(decay.unbind(), x.unbind(), strict=True)):
        x_t.addcmul_(a, x_before)
        a.mul_(reach_before)  # from here on the product of the decays from the chunk's start to t
    ends, spans = _by_chunk(x[-1], chunks), _by_chunk(decay[-1], chunks)  # (K, N, D, Gb) twice
    for k in range(1, chunks):
        ends[k].addcmul_(spans[k], ends[k - 1])
    starts = ends.roll(1, 0)  # (K, N, D, Gb)
    starts[0] = 0.0
    x.addcmul_(decay, _by_lane(starts))  # (T, N, D, W)


def _scan_backwards_(decay: Tensor, x: Tensor, reach: Tensor, *, chunks: int) -> None:
    """In place: x_t become g_t = x_t + a_{t+1} g_{t+1}, the adjoint of `_scan_forwards_`. ``reach`` is overwritten."""
    reach[-1] = 1.0
    steps = list(zip(decay.unbind(), x.unbind(), reach.unbind(), strict=True))[::-1]
    for (a_after, x_after, reach_after), (_, x_t, reach_t) in pairwise(steps):
        x_t.addcmul_(a_after, x_after)
        torch.mul(a_after, reach_after, out=reach_t)  # product of the decays from t + 1 to the chunk's end
    # What leaves a chunk backwards has passed the decay of its first step too.
    ends, spans = _by_chunk(x[0] * decay[0], chunks), _by_chunk(reach[0] * decay[0], chunks)  # (K, N, D, Gb) twice
    for k in range(chunks - 2, -1, -1):
        ends[k].addcmul_(spans[k], ends[k + 1])
    starts = ends.roll(-1, 0)  # (K, N, D, Gb)
    starts[-1] = 0.0
    x.addcmul_(reach, _by_lane(starts))  # (T, N, D, W)


def _chunks(length: int) -> int:
    """The number of chunks K, each of T = ceil(L / K) steps: about equal, which makes the T + K steps of a scan few."""
    return math.ceil(length / math.ceil(math.sqrt(length)))


def _to_lanes(x: Tensor) -> Tensor:
    """(G, X, b, L) -> (T, X, W). What fills up the last chunk is zero: a step delta = 0 leaves the state as it is."""
    chunks = _chunks(x.shape[3])
    steps = math.ceil(x.shape[3] / chunks)
    padded = pad(x, (0, chunks * steps - x.shape[3]))  # (G, X, b, KT)
    return padded.reshape(*x.shape[:3], chunks, steps).permute(4, 1, 0, 2, 3).flatten(2)  # (T, X, W)


def _from_lanes(lanes: Tensor, batch: int, length: int) -> Tensor:
    """(T, X, W) -> (G, X, b, L), the inverse of `_to_lanes`."""
    split = lanes.reshape(*lanes.shape[:2], -1, batch, _chunks(length))  # (T, X, G, b, K)
    return split.permute(2, 1, 3, 4, 0).flatten(3)[..., :length]  # (G, X, b, L)


def _by_chunk(x: Tensor, chunks: int) -> Tensor:
    """(N, D, W) -> a copy (K, N, D, Gb)."""
    return x.reshape(*x.shape[:2], -1, chunks).movedim(3, 0).contiguous()


def _by_lane(x: Tensor) -> Tensor:
    """(K, N, D, Gb) -> (N, D, W), the inverse of `_by_chunk`."""
    return x.movedim(0, 3).flatten(2)
