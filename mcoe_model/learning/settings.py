"""How a model is trained, as values: used by the client, by the server that tells it, and by the simulations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from mcoe_model.errors import SettingsError

Schedule = Literal["constant", "step", "cosine"]
BatchNorm = Literal["frozen", "running"]
Optimiser = Literal["adamw", "sgd"]
ReplayMethod = Literal["none", "replay", "der++"]


class Decay(NamedTuple):
    """What ``step`` does: multiply by ``factor`` after every so many epochs. The default is MCO-E Net's."""

    factor: float = 0.94
    epochs: int = 1


def rate_factor(schedule: Schedule, *, share: float, step: int, decay: Decay = Decay()) -> float:  # noqa: B008
    """The factor on the learning rate after this share (0..1) of a run, in its epoch or round ``step`` from 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return float(decay.factor ** (step // decay.epochs)) if schedule == "step" else 1.0


@dataclass(frozen=True)
class FineTuneSettings:
    """One training run over a set of clips. The defaults are a wearable's: a few epochs, a constant learning rate.

    - ``schedule``: ``constant``; ``step`` multiplies by 0.94 after every epoch, as published for MCO-E Net; ``cosine``
      falls to zero.
    - ``batch_norm``: ``frozen`` keeps the base model's statistics, ``running`` learns them (training from scratch).
    - ``balance``: weight of the load-balancing term over experts; the publication has none.
    - ``augment``: shift, brightness and event drop; only pictures can be augmented, cached features cannot.
    """

    epochs: int = 1
    batch_size: int = 8
    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    schedule: Schedule = "constant"
    batch_norm: BatchNorm = "frozen"
    balance: float = 0.01
    augment: bool = False

    def __post_init__(self) -> None:
        faults = self.faults()
        if faults:
            raise SettingsError(faults)

    def faults(self) -> list[str]:
        """Every setting that is out of bounds. The bounds also protect a client from an absurd task."""
        found = []
        if not 1 <= self.epochs <= 10_000:
            found.append(f"epochs must be between 1 and 10000, not {self.epochs}")
        if not 1 <= self.batch_size <= 4096:
            found.append(f"batch size must be between 1 and 4096, not {self.batch_size}")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            found.append(f"learning rate must be above 0 and at most 1, not {self.learning_rate}")
        if not (math.isfinite(self.weight_decay) and 0 <= self.weight_decay <= 1):
            found.append(f"weight decay must be between 0 and 1, not {self.weight_decay}")
        if not (math.isfinite(self.balance) and 0 <= self.balance <= 1):
            found.append(f"balance must be between 0 and 1, not {self.balance}")
        if self.schedule not in get_args(Schedule):
            found.append(f"schedule must be one of {', '.join(get_args(Schedule))}, not {self.schedule!r}")
        if self.batch_norm not in get_args(BatchNorm):
            found.append(f"batch norm must be one of {', '.join(get_args(BatchNorm))}, not {self.batch_norm!r}")
        return found


@dataclass(frozen=True)
class Recipe:
    """How a model is trained from scratch, centrally: the settings, and what a task for a client cannot say.

    - ``optimiser``: ``adamw``, with which clients always learn; ``sgd`` with momentum 0.9.
    - ``decay``: what the schedule ``step`` does here.
    """

    training: FineTuneSettings
    optimiser: Optimiser = "adamw"
    decay: Decay = Decay()  # noqa: RUF009 (it cannot be changed)


@dataclass(frozen=True)
class ReplaySettings:
    """What a wearable remembers of what it has learned, and how it learns with that.

    The defaults were measured on synthetic wearers (benchmarks/replay.py; the table is in docs/learning.md): both
    methods keep much of what is otherwise forgotten. DER++ is as accurate as plain replay and forgets somewhat less,
    for half as many clips again in every step. Of six weightings none stood out beyond the noise between wearers.

    - ``method``: ``none``; ``replay`` (plain_replay.py); ``der++`` (der.py).
    - ``alpha``, ``beta``: DER++'s weights of the stored logits and of the labels.
    - ``bytes``: the memory's limit. ``days``: what was learned longer ago is forgotten.
    """

    method: ReplayMethod = "der++"
    alpha: float = 0.3
    beta: float = 1.0
    bytes: int = 2_000_000
    days: int = 180

    def __post_init__(self) -> None:
        faults = self.faults()
        if faults:
            raise SettingsError(faults)

    def faults(self) -> list[str]:
        """Every setting that is out of bounds."""
        found = []
        if self.method not in get_args(ReplayMethod):
            found.append(f"replay method must be one of {', '.join(get_args(ReplayMethod))}, not {self.method!r}")
        for name in ("alpha", "beta"):
            weight = getattr(self, name)
            if not (math.isfinite(weight) and 0 <= weight <= 100):
                found.append(f"replay {name} must be between 0 and 100, not {weight}")
        if not 10_000 <= self.bytes <= 1_000_000_000:
            found.append(f"replay bytes must be between 10000 and 1000000000, not {self.bytes}")
        if not 1 <= self.days <= 3650:
            found.append(f"replay days must be between 1 and 3650, not {self.days}")
        return found
