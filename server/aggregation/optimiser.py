"""Server optimisers: what the rule aggregated is a pseudo-gradient, and the next model is a step along it.

Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2 (https://arxiv.org/abs/2003.00295), for FedAdam; Hsu
et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", section 4
(https://arxiv.org/abs/1909.06335), for FedAvgM. Differs: a tensor that the round left as it was is left alone with its
moments, so that momentum does not carry on an expert that nobody used; and batch normalisation's running statistics,
which are measured and not learned, are taken as aggregated, since a step could make a variance negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mcoe_model.errors import SettingsError
from mcoe_model.model_file import Tensors
from server.aggregation.rule import Float32s

OptimiserName = Literal["none", "fedavgm", "fedadam"]
OPTIMISERS: tuple[OptimiserName, ...] = ("none", "fedavgm", "fedadam")

#: The learning rate where settings name none. FedAdam moves every value by about as much in each round.
_LEARNING_RATE: Mapping[OptimiserName, float] = {"none": 1.0, "fedavgm": 1.0, "fedadam": 0.01}

#: How a tensor's moments are named.
_FIRST, _SECOND = "first-moment.", "second-moment."


@dataclass(frozen=True)
class OptimiserSettings:
    """The server's optimiser; `none` takes the aggregated model as the next one.

    - ``learning_rate``: eta; None for 1 with FedAvgM, 0.01 with FedAdam.
    - ``momentum``: beta of FedAvgM, beta_1 of FedAdam.
    - ``second_momentum``: beta_2 of FedAdam.
    - ``adaptivity``: tau of FedAdam, in units of a delta; the smaller, the more alike every value's step.
    """

    name: OptimiserName = "none"
    learning_rate: float | None = None
    momentum: float = 0.9
    second_momentum: float = 0.99
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        found = []
        if self.name not in OPTIMISERS:
            found.append(f"server optimiser must be one of {', '.join(OPTIMISERS)}, not {self.name!r}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            found.append(f"server learning rate must be above 0 and finite, not {self.learning_rate}")
        if self.learning_rate is not None and self.name == "none":
            found.append("a server learning rate needs a server optimiser")
        for what, value in (("momentum", self.momentum), ("second momentum", self.second_momentum)):
            if not 0 <= value < 1:
                found.append(f"server {what} must be at least 0 and below 1, not {value}")
        if not 0 < self.adaptivity < float("inf"):
            found.append(f"server adaptivity must be above 0 and finite, not {self.adaptivity}")
        if found:
            raise SettingsError(found)

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return _LEARNING_RATE[self.name] if self.learning_rate is None else self.learning_rate


def step(base: Tensors, aggregated: Tensors, moments: Tensors, settings: OptimiserSettings) -> tuple[Tensors, Tensors]:
    """The next model, in the base's dtypes, and the moments to give to the next step.

    ``aggregated`` is the base plus the rule's delta. ``moments`` are float32 and empty at first; the caller keeps them
    with the model that they belong to. The step is computed in float32. Nothing that is passed in is changed.
    """
    if settings.name == "none":
        return aggregated, moments
    advance = _momentum_step if settings.name == "fedavgm" else _adam_step
    tensors, kept = dict(aggregated), dict(moments)
    for name in sorted(base):
        old, new = base[name], aggregated[name]
        if _is_learned(name, old.dtype) and not np.array_equal(old, new):
            exact = np.promote_types(old.dtype, np.float32)
            delta = np.asarray(np.subtract(new, old, dtype=exact), np.float32)
            tensors[name] = np.asarray(old + advance(name, delta, kept, settings), old.dtype)
    return tensors, kept


def _is_learned(name: str, dtype: np.dtype[np.generic]) -> bool:
    """Whether a tensor is a parameter, neither a counter nor batch normalisation's statistics."""
    return np.issubdtype(dtype, np.floating) and not name.endswith((".running_mean", ".running_var"))


def _momentum_step(name: str, delta: Float32s, moments: dict[str, Float32s], settings: OptimiserSettings) -> Float32s:
    """FedAvgM: m <- beta m + delta; the step is eta m."""
    beta, rate = np.float32(settings.momentum), np.float32(settings.rate)
    first = moments.get(_FIRST + name, np.zeros_like(delta))
    moments[_FIRST + name] = np.asarray(beta * first + delta)
    return np.asarray(rate * moments[_FIRST + name])


def _adam_step(name: str, delta: Float32s, moments: dict[str, Float32s], settings: OptimiserSettings) -> Float32s:
    """FedAdam: m <- beta_1 m + (1 - beta_1) delta, v <- beta_2 v + (1 - beta_2) delta^2; eta m / (sqrt v + tau).

    v begins at tau^2, and there is no correction for the beginning, both as in the algorithm.
    """
    beta_1, beta_2 = np.float32(settings.momentum), np.float32(settings.second_momentum)
    rate, tau = np.float32(settings.rate), np.float32(settings.adaptivity)
    one = np.float32(1)
    first = moments.get(_FIRST + name, np.zeros_like(delta))
    second = moments.get(_SECOND + name, np.full_like(delta, tau * tau))
    first = np.asarray(beta_1 * first + (one - beta_1) * delta)
    second = np.asarray(beta_2 * second + (one - beta_2) * (delta * delta))
    moments[_FIRST + name], moments[_SECOND + name] = first, second
    return np.asarray(rate * first / (np.sqrt(second) + tau))
