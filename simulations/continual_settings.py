"""The settings of a comparison of methods against forgetting: one frozen dataclass, checked whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.errors import SettingsError
from mcoe_model.learning.methods import REMEMBERING, MethodSettings
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.networks.presets import MCOE_PRESETS as PRESETS
from simulations.own import Own, absolute, is_own, locate
from simulations.settings import SIMULATED_RULES
from simulations.streams import DESIGN, StreamName

Part = Literal["clients", "validation"]
Windows = Literal["exact", "middle"]


@dataclass(frozen=True)
class OwnMethod:
    """A method of somebody's own (`simulations.own`), made with the base model and the limit in bytes."""

    own: Own

    @property
    def label(self) -> str:
        """Its class and the first digits of its file's hash, so that a changed file is another method."""
        return self.own.label

    @property
    def eviction(self) -> str:
        """Who leaves a full memory is the method's own to say."""
        return "own"


@dataclass(frozen=True)
class Arm:
    """One method with one limit of memory; ``limit_bytes`` is None for those that keep nothing."""

    method: MethodSettings | OwnMethod
    limit_bytes: int | None

    @property
    def label(self) -> str:
        """How tables and folders name it."""
        return self.method.label if self.limit_bytes is None else f"{self.method.label} {self.megabytes:g} MB"

    @property
    def megabytes(self) -> float:
        """The limit in MB of 10^6 bytes; 0 without one."""
        return (self.limit_bytes or 0) / 1e6


@dataclass(frozen=True)
class ContinualSettings:
    """What `continual.py` does; the command's help says what each means. Raises SettingsError naming every fault."""

    stream: StreamName = "emotions"
    methods: str = "naive,latent-replay,der++,joint"
    memory_mb: str = "2"
    eviction: str = "reservoir"
    seeds: int = 3
    data: str = ""
    design: str = ""
    subjects: int = 20
    sequences: int = 0
    model: str = "mcoe-tiny"
    base_epochs: int = 20
    bases: str = ""
    part: Part = "clients"
    fold: int = 0
    lesson: int = 8
    epochs: int = 10
    batch_size: int = 8
    lr: float = 2e-3
    windows: Windows = "exact"
    label_noise: str = "0"
    federated: bool = False
    rule: str = "weighted-mean"

    def __post_init__(self) -> None:
        found = []
        methods = ",".join(absolute("method", text.strip()) for text in self.methods.split(","))
        object.__setattr__(self, "methods", methods)  # workers, and who goes on with the run, may be elsewhere
        for name, choices in {
            "stream": get_args(StreamName),
            "part": get_args(Part),
            "windows": get_args(Windows),
            "model": tuple(PRESETS),
            "rule": SIMULATED_RULES,
        }.items():
            if getattr(self, name) not in choices:
                found.append(f"--{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name, least in {"seeds": 1, "base_epochs": 1, "lesson": 1, "sequences": 0}.items():
            if getattr(self, name) < least:
                found.append(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")
        if self.rule != ContinualSettings.rule and not self.federated:
            found.append(f"--rule {self.rule} is of rounds: add --federated")
        if not 0 <= self.fold < 5:
            found.append(f"--fold must be between 0 and 4, not {self.fold}")
        for build in (lambda: self.arms, lambda: self.recipe, lambda: self.synthetic):
            try:
                build()
            except SettingsError as fault:
                found += [one for one in fault.faults if one not in found]
            except KeyError:  # of a stream or a model that is none, which was said already
                pass
        if found:
            raise SettingsError(found)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every method with every limit; naive fine-tuning first, since the others are judged by what it forgets."""
        texts = [text.strip() for text in self.methods.split(",") if text.strip()]
        evictions = [text.strip() for text in self.eviction.split(",")]
        found: dict[str, Arm] = {}
        faults: list[str] = []
        limits = self._limits(faults)
        for text in ["naive", *texts]:
            if is_own("method", text):
                own = [Arm(OwnMethod(locate("method", text)), most) for most in limits]
                found |= {arm.label: arm for arm in own}
                continue
            for eviction in evictions:
                try:
                    method = MethodSettings.parse(text, eviction)  # type: ignore[arg-type]
                except SettingsError as fault:
                    faults += [one for one in fault.faults if one not in faults]
                    continue
                kept = method.name in (*REMEMBERING, "ewc", "lwf")
                for limit in limits if kept else (None,):
                    arm = Arm(method, limit)
                    found.setdefault(arm.label, arm)
        if faults:
            raise SettingsError(faults)
        return tuple(found.values())

    def _limits(self, faults: list[str]) -> tuple[int, ...]:
        try:
            limits = tuple(round(float(text) * 1e6) for text in self.memory_mb.split(","))
        except ValueError:
            limits = ()
        if not limits or not all(0 < limit <= 10**9 for limit in limits):
            faults.append(f"--memory-mb must be sizes above 0, at most 1000, with commas between: {self.memory_mb!r}")
            return ()
        return limits

    @property
    def where(self) -> str:
        """Whether devices learn alone or in rounds, in words."""
        return "in rounds" if self.federated else "alone"

    @property
    def recipe(self) -> FineTuneSettings:
        """How a lesson is learned."""
        return FineTuneSettings(self.epochs, self.batch_size, self.lr)

    @property
    def base_recipe(self) -> FineTuneSettings:
        """How the base is trained: as its model says, for so many epochs."""
        return replace(PRESETS[self.model].recipe.training, epochs=self.base_epochs)

    @property
    def synthetic(self) -> SyntheticSettings | None:
        """The synthetic data to make, or None when ``data`` names others. They do not depend on the runs' seeds."""
        if self.data:
            return None
        design = self.design or DESIGN[self.stream]
        return SyntheticSettings(self.subjects, self.sequences or None, PRESETS[self.model].input_size, design)

    @property
    def base_lighting(self) -> str | None:
        """The only lighting that the base sees; None for all that there are."""
        return "normal" if self.stream == "lighting" else None
