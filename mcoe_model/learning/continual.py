"""Learning that does not undo what was learned before: the method that a wearable's settings ask for."""

from __future__ import annotations

from mcoe_model.learning.der import DarkExperience
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.plain_replay import PlainReplay
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.learning.settings import ReplaySettings


def continual_method(settings: ReplaySettings, memory: ReplayMemory) -> ContinualMethod | None:
    """The method that the settings ask for, over this memory; None for ``none`` and for an empty memory."""
    if settings.method == "none" or not memory.exemplars:
        return None
    samples = ReplaySamples(memory)
    if settings.method == "replay":
        return PlainReplay(samples)
    return DarkExperience(samples, settings.alpha, settings.beta)
