"""FedProx: a client is held to the model that it was sent.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2 (https://arxiv.org/abs/1812.06127): the
loss of every step has mu/2 |w - w_sent|^2 added. Differs: an expert that a step's clips did not choose is left alone by
that step, as everywhere here. It keeps no state and sends nothing more.
"""

from __future__ import annotations

from numpy.random import Generator
from torch import Tensor

from mcoe_model.learning.method import Batch, ContinualMethod
from mcoe_model.networks import Network
from simulations.local_methods.terms import trained_parameters


class FedProx(ContinualMethod):
    """The proximal term, mu/2 times the squared distance of the head to the ``model``'s as it is now."""

    def __init__(self, model: Network, mu: float) -> None:
        self._mu = mu
        self._sent = {name: value.detach().clone() for name, value in trained_parameters(model).items()}

    def term(self, model: Network, new: Batch, draws: Generator) -> tuple[Tensor, None]:
        """The term (), behind which there are no clips."""
        squares = [(value - self._sent[name]).square().sum() for name, value in trained_parameters(model).items()]
        return self._mu / 2 * sum(squares[1:], start=squares[0]), None
