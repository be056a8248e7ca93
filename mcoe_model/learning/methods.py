"""Every method against forgetting, by name, for the comparison of them; a wearable's own choice is in `continual`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from mcoe_model.errors import SettingsError
from mcoe_model.learning.agem import AveragedGradients
from mcoe_model.learning.der import DarkExperience
from mcoe_model.learning.ewc import Consolidation
from mcoe_model.learning.lwf import Distilled
from mcoe_model.learning.method import ContinualMethod, Retention
from mcoe_model.learning.plain_replay import PlainReplay
from mcoe_model.learning.refed import Importance
from mcoe_model.learning.remembered import Remembered
from mcoe_model.learning.replay import ENTRY_BYTES
from mcoe_model.learning.replay_samples import ReplaySamples
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet

MethodName = Literal["naive", "experience-replay", "latent-replay", "der++", "a-gem", "ewc", "lwf", "joint"]
Eviction = Literal["reservoir", "re-fed"]

#: The weights that a method can be given, with their defaults: docs/continual.md says how those of DER++ were found;
#: the others' were not tuned.
WEIGHTS: dict[MethodName, dict[str, float]] = {
    "der++": {"alpha": 0.3, "beta": 1.0},
    "ewc": {"strength": 100.0},
    "lwf": {"strength": 1.0},
}
#: The methods that draw from a replay memory.
REMEMBERING: tuple[MethodName, ...] = ("experience-replay", "latent-replay", "der++", "a-gem")


@dataclass(frozen=True)
class MethodSettings:
    """One method of the comparison, with its weights. Raises SettingsError for what is no method, or no weight of it.

    - ``naive``: fine-tuning on what is new, and nothing else. ``joint``: on everything so far, from the base: no method
      but the upper line, without a limit.
    - ``experience-replay`` keeps the four pictures of a window, ``latent-replay`` their features, as a wearable does
      (its setting is called ``replay``), and so do ``der++`` and ``a-gem``.
    - ``ewc``, ``lwf``: keep no clips.
    """

    name: MethodName
    weights: dict[str, float] = field(default_factory=dict)
    eviction: Eviction = "reservoir"

    def __post_init__(self) -> None:
        found = []
        if self.name not in get_args(MethodName):
            found.append(f"there is no method {self.name!r} (known: {', '.join(get_args(MethodName))})")
        if self.eviction not in get_args(Eviction):
            found.append(f"eviction must be one of {', '.join(get_args(Eviction))}, not {self.eviction!r}")
        for name, weight in self.weights.items():
            if name not in WEIGHTS.get(self.name, {}):
                found.append(f"{self.name} has no weight {name!r}")
            elif not (math.isfinite(weight) and 0 <= weight <= 1e6):
                found.append(f"{name} of {self.name} must be between 0 and 1000000, not {weight}")
        if found:
            raise SettingsError(found)

    @staticmethod
    def parse(text: str, eviction: Eviction = "reservoir") -> MethodSettings:
        """The method of ``name`` or ``name:weight:weight``, such as ``der++:0.3:1``. Raises SettingsError."""
        name, *given = text.split(":")
        known = WEIGHTS.get(name, {})  # type: ignore[call-overload]
        if len(given) > len(known):
            raise SettingsError([f"{name} takes {len(known)} weights, not the {len(given)} of {text!r}"])
        try:
            weights = dict(zip(known, map(float, given), strict=False))
        except ValueError as fault:
            raise SettingsError([f"the weights of {text!r} are no numbers"]) from fault
        return MethodSettings(name, weights, eviction if name in REMEMBERING else "reservoir")  # type: ignore[arg-type]

    @property
    def label(self) -> str:
        """The method as it is written in tables and paths: `parse` reads it, but for the eviction."""
        given = "".join(f":{weight:g}" for weight in self.weights.values())
        return self.name + given + ("+re-fed" if self.eviction == "re-fed" else "")

    def weight(self, name: str) -> float:
        """A weight, given or default."""
        return self.weights.get(name, WEIGHTS[self.name][name])


def retention(
    settings: MethodSettings, base: MCOENet, limit_bytes: int, *, in_rounds: bool = False
) -> Retention | None:
    """What a method of the comparison keeps before its first lesson; None for one that keeps nothing.

    ``base`` is the model that the device begins from, alone or in rounds. Raises SettingsError when what the method
    keeps, or one entry of its memory beside that, is larger than ``limit_bytes``.
    """
    kept: Retention
    if settings.name == "ewc":
        kept = Consolidation.begin(base, settings.weight("strength"))
    elif settings.name == "lwf":
        kept = Distilled(base, settings.weight("strength"))
    elif settings.name in REMEMBERING:
        importance = Importance(base, of_round=in_rounds) if settings.eviction == "re-fed" else None
        entry, features = _entry(settings.name, base), feature_bytes(base)
        kept = Remembered.begin(_over(settings), entry, features, limit_bytes, importance)
    else:
        return None
    if kept.size_bytes > limit_bytes:
        raise SettingsError(
            [f"{settings.name} keeps {kept.size_bytes} bytes beside the model, more than the limit of {limit_bytes}"]
        )
    return kept


def _over(settings: MethodSettings) -> Callable[[ReplaySamples], ContinualMethod]:
    if settings.name == "der++":
        return lambda samples: DarkExperience(samples, settings.weight("alpha"), settings.weight("beta"))
    return AveragedGradients if settings.name == "a-gem" else PlainReplay


def feature_bytes(model: MCOENet) -> int:
    """Bytes that a remembered clip counts whose features are kept."""
    return 4 * model.config.features * 2 + len(EMOTIONS) * 4 + ENTRY_BYTES


def _entry(name: MethodName, model: MCOENet) -> int:
    """Bytes that an entry of a method counts: four grey pictures in place of their features."""
    return 4 * model.config.input_size**2 + ENTRY_BYTES if name == "experience-replay" else feature_bytes(model)


def described(methods: Sequence[MethodSettings]) -> list[dict[str, object]]:
    """The methods as a run's record holds them."""
    return [{"method": m.name, "eviction": m.eviction, **WEIGHTS.get(m.name, {}), **m.weights} for m in methods]
