"""The selective scan: a linear recurrence whose decay, input and output change at every step.

Gu and Dao, "Mamba", 2023, https://arxiv.org/abs/2312.00752 (section 3.2, with the simplified Euler step for the input):
    h_t[d,n] = exp(delta_t[d] A[d,n]) h_{t-1}[d,n] + delta_t[d] B_t[n] u_t[d]
    y_t[d]   = sum_n C_t[n] h_t[d,n] + skip[d] u_t[d],        h_0 = 0.
What differs: several independent scans (one per modality and direction), each with its own A, run as one call.

Letters: G scans, B batch, D channels, N states, L steps; inside the chunked scan T steps of a chunk, K chunks,
W = G B K lanes. Capital B, C and A are also the tensors of those names, as in the paper.

Methods: ``chunked`` (default) cuts time into about sqrt(L) chunks of sqrt(L) steps, scans all chunks at once, passes
the state from chunk to chunk, and has a backward pass of its own. Both directions multiply decays only, each in (0, 1],
and never divide by one: nothing overflows, at any length. ``reference`` is the plain loop, one scan after another.
``mamba_ssm`` is the authors' CUDA kernel. Nothing falls back from one to another.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mcoe_model.errors import MissingExtra, SettingsError

Method = Literal["chunked", "reference", "mamba_ssm"]


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, *, method: Method = "chunked"
) -> Tensor:
    """Scan ``u`` (G, B, D, L) along its last axis; returns y (G, B, D, L).

    ``delta`` (G, B, D, L) is positive; ``A`` (G, D, N) is negative; ``B`` and ``C`` are (G, B, N, L); ``skip`` (G, D).
    Raises SettingsError for an unknown method, or for ``mamba_ssm`` on tensors that are not on a GPU, MissingExtra when
    that package is not installed.
    """
    if method == "chunked":
        scanned: Tensor = _ChunkedScan.apply(u, delta, A, B, C)  # (G, B, D, L)
    elif method == "reference":
        scanned = _reference(u, delta, A, B, C)  # (G, B, D, L)
    elif method == "mamba_ssm":
        scanned = _mamba_ssm(u, delta, A, B, C)  # (G, B, D, L)
    else:
        raise SettingsError([f"selective scan: no method {method!r} (known: chunked, reference, mamba_ssm)"])
    return scanned + skip[:, None, :, None] * u  # (G, B, D, L)


def _reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    scans = []
    for g in range(u.shape[0]):
        h = u.new_zeros(u.shape[1], u.shape[2], A.shape[2])  # (B, D, N)
        steps = []
        for t in range(u.shape[3]):
            decay = torch.exp(delta[g, :, :, t, None] * A[g])  # (B, D, N)
            x = (delta[g, :, :, t] * u[g, :, :, t])[:, :, None] * B[g, :, None, :, t]  # (B, D, N)
            h = decay * h + x  # (B, D, N)
            steps.append((h * C[g, :, None, :, t]).sum(-1))  # (B, D)
        scans.append(torch.stack(steps, -1))  # (B, D, L)
    return torch.stack(scans)  # (G, B, D, L)


def _mamba_ssm(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    kernel = _mamba_ssm_kernel(u.device)
    G, batch, D, L = u.shape
    # The kernel knows groups of channels that share B and C: a scan is such a group.
    scanned: Tensor = kernel(
        u.transpose(0, 1).reshape(batch, G * D, L),  # (B, GD, L)
        delta.transpose(0, 1).reshape(batch, G * D, L),  # (B, GD, L)
        A.reshape(G * D, -1),  # (GD, N)
        B.transpose(0, 1).contiguous(),  # (B, G, N, L)
        C.transpose(0, 1).contiguous(),  # (B, G, N, L)
    )  # (B, GD, L)
    return scanned.reshape(batch, G, D, L).transpose(0, 1)  # (G, B, D, L)


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

    The gradient g_t of the loss by h_t is itself such a scan, backwards in time: g_t = C_t dy_t + a_{t+1} g_{t+1}.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        u_, delta_, B_, C_ = (_to_lanes(tensor) for tensor in (u, delta, B, C))  # (T, D, W) twice, (T, N, W) twice
        A_ = _lanes_of_A(A, delta, delta_.shape[2])  # (N, D, W)
        decay = (delta_[:, None] * A_).exp_()  # (T, N, D, W)
        h = (delta_ * u_)[:, None] * B_[:, :, None]  # (T, N, D, W)
        _scan_forwards_(decay, h, chunks=_chunks(u.shape[3]))
        ctx.save_for_backward(u_, delta_, A_, B_, C_, decay, h)
        ctx.batch, ctx.length = u.shape[1], u.shape[3]
        return _from_lanes((h * C_[:, :, None]).sum(1), u.shape[1], u.shape[3])  # (G, B, D, L)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        u, delta, A, B, C, decay, h = ctx.saved_tensors
        batch, length, chunks = ctx.batch, ctx.length, _chunks(ctx.length)
        dy_ = _to_lanes(dy)  # (T, D, W)
        g = dy_[:, None] * C[:, :, None]  # (T, N, D, W)
        _scan_backwards_(decay, g, chunks=chunks)
        dC = (dy_[:, None] * h).sum(2)  # (T, N, W)
        dx = (g * B[:, :, None]).sum(1)  # (T, D, W): gradient by delta_t u_t
        dB = (g * (delta * u)[:, None]).sum(2)  # (T, N, W)
        # By the exponent delta_t A: g_t h_{t-1} a_t. The state before a chunk's first step is the end of the chunk before.
        g[1:] *= h[:-1]
        g[0, ..., 1:] *= h[-1, ..., :-1]
        g[0].unflatten(-1, (-1, chunks))[..., 0] = 0.0
        g *= decay  # (T, N, D, W)
        ddelta = (g * A).sum(1) + dx * u  # (T, D, W)
        dA = torch.einsum("tndw,tdw->ndw", g, delta)  # (N, D, W)
        dA = dA.unflatten(-1, (-1, batch * chunks)).sum(-1).permute(2, 1, 0)  # (G, D, N)
        du = dx * delta  # (T, D, W)
        return (
            _from_lanes(du, batch, length),  # (G, B, D, L)
            _from_lanes(ddelta, batch, length),  # (G, B, D, L)
            dA,
            _from_lanes(dB, batch, length),  # (G, B, N, L)
            _from_lanes(dC, batch, length),  # (G, B, N, L)
        )


def _scan_forwards_(decay: Tensor, x: Tensor, *, chunks: int) -> None:
    """In place: inputs x_t become states h_t = decay_t h_{t-1} + x_t. Both (T, N, D, W), chunks fastest in W."""
    reach = decay.clone()  # (T, N, D, W): product of the decays from the chunk's start to t
    for t in range(1, len(x)):
        x[t].addcmul_(decay[t], x[t - 1])
        reach[t] *= reach[t - 1]
    ends = x[-1].unflatten(-1, (-1, chunks)).movedim(-1, 0).contiguous()  # (K, N, D, GB)
    spans = reach[-1].unflatten(-1, (-1, chunks)).movedim(-1, 0).contiguous()  # (K, N, D, GB)
    for k in range(1, chunks):
        ends[k].addcmul_(spans[k], ends[k - 1])
    starts = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])  # (K, N, D, GB)
    x.addcmul_(reach, starts.movedim(0, -1).flatten(-2))  # (T, N, D, W)


def _scan_backwards_(decay: Tensor, x: Tensor, *, chunks: int) -> None:
    """In place: x_t become g_t = x_t + decay_{t+1} g_{t+1}, the adjoint of `_scan_forwards_`."""
    reach = torch.ones_like(decay)  # (T, N, D, W): product of the decays from t+1 to the chunk's end
    for t in range(len(x) - 2, -1, -1):
        x[t].addcmul_(decay[t + 1], x[t + 1])
        torch.mul(reach[t + 1], decay[t + 1], out=reach[t])
    # What leaves a chunk backwards has also passed the decay of its first step.
    firsts = (x[0] * decay[0]).unflatten(-1, (-1, chunks)).movedim(-1, 0).contiguous()  # (K, N, D, GB)
    spans = (reach[0] * decay[0]).unflatten(-1, (-1, chunks)).movedim(-1, 0).contiguous()  # (K, N, D, GB)
    for k in range(chunks - 2, -1, -1):
        firsts[k].addcmul_(spans[k], firsts[k + 1])
    after = torch.cat([firsts[1:], torch.zeros_like(firsts[:1])])  # (K, N, D, GB)
    x.addcmul_(reach, after.movedim(0, -1).flatten(-2))  # (T, N, D, W)


def _chunks(length: int) -> int:
    """The number of chunks K; each has T = ceil(L / K) steps. The loops take T + K steps, least where both are equal."""
    return math.ceil(length / math.ceil(math.sqrt(length)))


def _to_lanes(tensor: Tensor) -> Tensor:
    """(G, B, X, L) -> (T, X, W). Steps that fill the last chunk are zero: delta = 0 keeps the state as it is."""
    chunks = _chunks(tensor.shape[3])
    steps = math.ceil(tensor.shape[3] / chunks)
    padded = torch.nn.functional.pad(tensor, (0, chunks * steps - tensor.shape[3]))  # (G, B, X, KT)
    return padded.unflatten(-1, (chunks, steps)).permute(4, 2, 0, 1, 3).flatten(2)  # (T, X, W)


def _from_lanes(lanes: Tensor, batch: int, length: int) -> Tensor:
    """(T, X, W) -> (G, B, X, L), the inverse of `_to_lanes`."""
    split = lanes.unflatten(-1, (-1, batch, _chunks(length)))  # (T, X, G, B, K)
    return split.permute(2, 3, 1, 4, 0).flatten(3)[..., :length]  # (G, B, X, L)


def _lanes_of_A(A: Tensor, delta: Tensor, lanes: int) -> Tensor:
    """(G, D, N) -> (N, D, W): every lane gets the A of its scan."""
    return A.permute(2, 1, 0).repeat_interleave(lanes // delta.shape[0], dim=-1)  # (N, D, W)
