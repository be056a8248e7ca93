"""Leaky integrate-and-fire neurons, unrolled over time.

As in SEEN, 2023, https://arxiv.org/abs/2310.04043, by the authors' released code: a membrane keeps a fifth of itself
from step to step, is set back by its own spike, and fires above a threshold. Spikes have no derivative; training uses a
rectangle around the threshold in its place (Wu et al. 2018, "Spatio-Temporal Backpropagation for Training
High-Performance Spiking Neural Networks", https://arxiv.org/abs/1706.02609, equation 24), through the reset as well.

Letters: T time steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

THRESHOLD = 0.3
DECAY = 0.2  # share of a membrane that is left after a step
HALF_WIDTH = 0.5  # of the surrogate's rectangle


class Neurons(NamedTuple):
    """What a layer of neurons did; each (T, ...) as its currents."""

    spikes: Tensor  # 0 or 1
    membranes: Tensor


class _Fire(torch.autograd.Function):
    """1 above the threshold, else 0; the derivative is 1 closer to it than `HALF_WIDTH`, else 0."""

    @staticmethod
    def forward(ctx: Any, membrane: Tensor) -> Tensor:
        ctx.save_for_backward(membrane)
        return (membrane > THRESHOLD).to(membrane.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (membrane,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * ((membrane - THRESHOLD).abs() < HALF_WIDTH)
        return passed


def fire(membrane: Tensor) -> Tensor:
    """The spikes of these membranes, 0 or 1, of the same shape and type."""
    spikes: Tensor = _Fire.apply(membrane)  # type: ignore[no-untyped-call]
    return spikes


def integrate_and_fire(currents: Tensor) -> Neurons:
    """Neurons that receive ``currents`` (T, ...) over T steps, from rest: no charge, no spike."""
    membranes, spikes = list[Tensor](), list[Tensor]()
    for current in currents:
        left = DECAY * membranes[-1] * (1 - spikes[-1]) if membranes else 0.0
        membranes.append(left + current)
        spikes.append(fire(membranes[-1]))
    return Neurons(torch.stack(spikes), torch.stack(membranes))
