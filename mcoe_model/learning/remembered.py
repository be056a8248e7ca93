"""What the methods keep that learn from remembered clips: a replay memory, whose bytes are bounded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mcoe_model.errors import SettingsError
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.refed import Importance
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples, exemplars_of
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Network


@dataclass(frozen=True, eq=False)
class Remembered:
    """A memory, the method that draws from it, and what decides who stays: chance within strata, or importance.

    An entry counts ``entry_bytes``. The memory holds features whatever is counted: frozen backbones make the same
    features of a picture every time, so a method that keeps pictures differs in how many clips it has room for.
    """

    memory: ReplayMemory
    over: Callable[[ReplaySamples], ContinualMethod]
    entry_bytes: int
    importance: Importance | None

    @staticmethod
    def begin(
        over: Callable[[ReplaySamples], ContinualMethod],
        entry_bytes: int,
        feature_bytes: int,
        limit_bytes: int,
        importance: Importance | None,
    ) -> Remembered:
        """An empty memory for entries, whose features are ``feature_bytes`` large, beside what importance keeps.

        Raises SettingsError where there is no room for one within ``limit_bytes``.
        """
        beside = importance.size_bytes if importance else 0
        entries = (limit_bytes - beside) // entry_bytes
        if entries < 1:
            first = f"the model that importance is measured beside takes {beside} bytes and " if beside else ""
            raise SettingsError(
                [f"{first}a remembered clip takes {entry_bytes} bytes, more than the limit of {limit_bytes}"]
            )
        return Remembered(ReplayMemory("comparison", entries * feature_bytes), over, entry_bytes, importance)

    def begins_from(self, world: Network) -> Remembered:
        """The same in a round that begins from the model ``world``, beside which importance is measured."""
        if self.importance is None:
            return self
        return replace(self, importance=replace(self.importance, world=copy.deepcopy(world), of_round=True))

    @property
    def size_bytes(self) -> int:
        beside = self.importance.size_bytes if self.importance else 0
        return len(self.memory.exemplars) * self.entry_bytes + beside

    def method(self, model: Network) -> ContinualMethod | None:
        return self.over(ReplaySamples(self.memory)) if self.memory.exemplars else None

    def after(self, model: Network, samples: Samples, lightings: Sequence[str]) -> Remembered:
        new = exemplars_of(model, samples, lightings=lightings, day=0)
        memory = self.memory.add(new) if self.importance is None else self.importance.keep(self.memory, new)
        return replace(self, memory=memory)
