"""SCAFFOLD: control variates take the drift towards a client's own data out of its steps.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", algorithm 1 with option I
(https://arxiv.org/abs/1910.06378). Letters as there: c_i the control variate of client i, c their mean over all N
clients, x the model sent, g_i(x) the gradient of the mean loss of all of i's clips. Every step's gradient has c - c_i
added; after the round c_i is g_i(x).

Differs: the steps are AdamW's, as in every arm here, and not those of plain descent, so the correction is one of what
Adam is fed, and the paper's convergence theorem does not cover it; option II, which reads the gradient off the distance
walked, is not possible with them. An expert that a step's clips did not choose is left alone by that step. g_i(x) is
over the middle window of every clip, without dropout and balancing term.

What it costs: a client keeps c_i, as large as the head in float32; each round would send c down and the change of c_i
up, so both directions double; and one more pass over the clips. Those would be new messages: this is a simulation, in
which the files of `state.py` stand for them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.fine_tune import middle_window
from mcoe_model.learning.method import Batch, ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import Network
from simulations.local_methods.state import ClientState, current_round
from simulations.local_methods.terms import trained_parameters
from simulations.scene import Scene


class Scaffold(ContinualMethod):
    """The correction <c - c_i, w> of a client's steps in the newest round, from the ``model`` that it was sent."""

    def __init__(self, model: Network, samples: Samples, scene: Scene, client: str) -> None:
        clients = scene.subjects("clients")
        state, number = ClientState(scene.paths.folder / "scaffold"), current_round(scene.paths.folder)
        known = {one: kept for one in clients if (kept := state.before(one, number))}  # c_i is 0 for all others
        own = known.get(client, {})
        self._correction = {
            name: torch.as_tensor(sum(kept[name] for kept in known.values()) / len(clients) - own.get(name, 0))
            for name in (next(iter(known.values())) if known else {})
        }
        state.write(client, number, {name: value.numpy() for name, value in _gradient(model, samples).items()})

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, None] | None:
        """The term (), behind which there are no clips; None in the first round."""
        if not self._correction:
            return None
        products = [(self._correction[name] * value).sum() for name, value in trained_parameters(model).items()]
        return sum(products[1:], start=products[0]), None


def _gradient(model: Network, samples: Samples) -> dict[str, Tensor]:
    """g_i(x) by name, zero for what no clip used. The model is in evaluation mode."""
    positions = list(range(len(samples.names)))
    windows = np.stack([middle_window(model.config.sampling, length) for length in samples.lengths])  # (n, samples)
    logits, _ = model.classify(samples.head_inputs(model, positions, windows, None))  # (n, 7)
    labels = torch.from_numpy(samples.labels)  # (n,)
    loss = model.loss(logits, labels, labels.bincount(minlength=len(EMOTIONS)))
    parameters = trained_parameters(model)
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))
