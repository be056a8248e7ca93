"""The settings of a simulation: one frozen dataclass, from defaults, then a TOML file, then flags; checked whole."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mcoe_model.data.representations import REPRESENTATIONS
from mcoe_model.data.synthetic.settings import DESIGNS, SyntheticSettings
from mcoe_model.errors import DataMissing, SettingsError
from mcoe_model.learning.settings import BatchNorm, FineTuneSettings, Recipe, Schedule
from mcoe_model.names import LIGHTINGS
from mcoe_model.networks.mcoe import McoeConfig
from mcoe_model.networks.presets import GROUP_ENDING, GROUP_PRESETS, PRESETS, SEEN_FORM, config_of, find_config
from mcoe_model.update import TRAIN_MODES, TrainMode
from server.aggregation import RULES
from server.aggregation.optimiser import OPTIMISERS, OptimiserName, OptimiserSettings
from server.aggregation.rule import ROUTER_MODES, RouterMode, RuleSettings
from simulations.own import KINDS, absolute, install, is_own, locate

Protocol = Literal["unseen-subjects", "published"]
Engine = Literal["local", "ray"]
Baselines = Literal["auto", "on", "off"]
Partition = Literal["subject", "iid", "label-skew"]
BatchNormPolicy = Literal["auto", "frozen", "local", "shared", "group"]
LocalMethod = Literal["none", "fedprox", "scaffold", "personal-router", "personal-experts"]

#: Rules that need nothing which a simulation does not have.
SIMULATED_RULES = tuple(name for name, rule in RULES.items() if not rule.needs_reference)
#: Which defaults a scale changes: `quick` is the dataclass's own, `full` is all of SEE's subjects.
SCALES: dict[str, dict[str, Any]] = {
    "quick": {},
    "full": {"subjects": 111, "sequences": 0, "base_epochs": 8},
}


def _setting(default: Any, says: str) -> Any:
    """A field with its default and the line that `--help` shows."""
    return dataclasses.field(default=default, metadata={"help": says})


@dataclass(frozen=True)
class SimulationSettings:
    """What `see_by_subject.py` does. Every field is a flag of it and a key of its TOML file."""

    data: str = _setting("", "SEE folder (event/, frame/, emotion.json), a table of clips (.csv) or exported spans "
                             "(spans.csv); without any, synthetic data are made once")
    data_reader: str = _setting("", "your own reader of --data, as path/file.py:Class")
    representation: str = _setting("ternary", f"what the networks see of events: {', '.join(REPRESENTATIONS)}")
    subjects: int = _setting(32, "subjects of the synthetic set")
    sequences: int = _setting(14, "sequences per synthetic subject at most; 0: SEE's own counts")
    design: str = _setting("see-like", f"design of the synthetic set: {', '.join(DESIGNS)}")
    partition: Partition = _setting("subject", "whose the clients' clips are: subject, iid or label-skew")
    alpha: float = _setting(0.3, "with label-skew: Dirichlet's alpha; the smaller, the fewer emotions a client has")
    size: int = _setting(0, "side of the pictures in pixels; 0: the model's own")
    model: str = _setting(
        "mcoe-tiny", f"preset: {', '.join(PRESETS)}; {SEEN_FORM}; or your own, as path/file.py:Class"
    )
    base: str = _setting("train", "train (on the base subjects), scratch (rounds start from nothing) or a checkpoint")
    imagenet: str = _setting("", "file with torchvision's ResNet-18 weights for the backbones (.safetensors or .pth)")
    base_lighting: str = _setting("all", f"light of the base's clips: all, or of {', '.join(LIGHTINGS)}, with commas")
    base_epochs: int = _setting(0, "epochs of the base model's training; 0: its recipe's own")
    rounds: int = _setting(24, "federated rounds")
    cohort: str = _setting("all", "clients per round: all, a number or a share")
    local_epochs: int = _setting(1, "epochs on a client in one round")
    batch_size: int = _setting(8, "batch size on a client")
    lr: float = _setting(1e-3, "learning rate on a client")
    grid: str = _setting("", "learning rates to try in place of --lr, such as 3e-4,1e-3,3e-3; each arm takes its best")
    schedule: Schedule = _setting("step", "learning rate over the rounds: constant, step (x 0.94 a round) or cosine")
    train: TrainMode = _setting("full", "head (frozen backbones, cached features) or full")
    batch_norm: BatchNormPolicy = _setting(
        "auto",
        "batch normalisation in the backbones, with --train full: frozen (the base's statistics), local (each client's "
        "own, FedBN), shared (averaged) or group (group normalisation in its place); auto: shared with --base scratch, "
        "else frozen",
    )
    rule: str = _setting("weighted-mean", f"aggregation rule: {', '.join(SIMULATED_RULES)}")
    router: RouterMode = _setting("averaged", f"what becomes of the router: {', '.join(ROUTER_MODES)}")
    balance: float = _setting(0.01, "weight of the load-balancing term over experts on a client; 0: none")
    local_method: LocalMethod = _setting(
        "none", f"what a client's training adds, with --train head: {', '.join(get_args(LocalMethod))}"
    )
    proximal: float = _setting(0.1, "with fedprox: mu, how strongly a client is held to the model that it was sent")
    faulty: int = _setting(1, "clients that a robust rule assumes to be hostile")
    server_optimiser: OptimiserName = _setting("none", f"step along what the rule made: {', '.join(OPTIMISERS)}")
    server_lr: float = _setting(0.0, "learning rate of the server's optimiser; 0: 1 with fedavgm, 0.01 with fedadam")
    server_momentum: float = _setting(0.9, "momentum of fedavgm, beta 1 of fedadam")
    server_second_momentum: float = _setting(0.99, "beta 2 of fedadam")
    server_adaptivity: float = _setting(1e-3, "tau of fedadam: below it, values take smaller steps")
    protocol: Protocol = _setting("unseen-subjects", "unseen-subjects, or published: SEE's own split, by sequence")
    fold: str = _setting("0", "which fold of the subjects is tested; all: one after the other, every subject once")
    folds: int = _setting(5, "number of folds; as many as subjects is leave-one-subject-out")
    split: str = _setting("", "fold file that says who is in which part, such as another run's fold.json; "
                              "without any, the subjects are dealt out")
    engine: Engine = _setting("local", "local, or ray: Flower's own simulation engine")
    workers: int = _setting(0, "worker processes; 0: one per processor. Results do not depend on it")
    seed: int = _setting(0, "seed of everything")
    baselines: Baselines = _setting("auto", "centralised, each client alone, all data in one place: auto, on or off")
    passes: int = _setting(0, "also score this many random passes on the test part, as published (20)")
    tensorboard: bool = _setting(False, "write TensorBoard logs (needs the extra `tensorboard`)")

    def __post_init__(self) -> None:
        found = self._faults()
        if found:
            raise SettingsError(found)

    def _faults(self) -> list[str]:
        found = []
        for name, choices in {
            "model": tuple(PRESETS),
            "train": TRAIN_MODES,
            "rule": SIMULATED_RULES,
            "representation": tuple(REPRESENTATIONS),
            "schedule": get_args(Schedule),
            "protocol": get_args(Protocol),
            "engine": get_args(Engine),
            "baselines": get_args(Baselines),
            "design": DESIGNS,
            "partition": get_args(Partition),
            "batch_norm": get_args(BatchNormPolicy),
            "local_method": get_args(LocalMethod),
        }.items():
            said = getattr(self, name)
            ours = said in choices or (name == "model" and find_config(said) is not None)
            if not ours and not (name in KINDS and is_own(name, said)):
                form = f", {SEEN_FORM}" if name == "model" else ""
                mine = ", or your own as path/file.py:Class" if name in KINDS else ""
                flag = f"--{name.replace('_', '-')}"
                found.append(f"{flag} must be one of {', '.join(choices)}{form}{mine}, not {said!r}")
        if is_own("model", self.model):
            try:
                install({"model": locate("model", self.model)})
            except SettingsError as fault:
                return found + fault.faults
        if self.data_reader and not is_own("data-reader", self.data_reader):
            found.append(f"--data-reader must be path/file.py:Class or an entry point, not {self.data_reader!r}")
        if self.data_reader and not self.data:
            found.append("--data-reader needs --data, the place that it reads")
        at_least = {"rounds": 1, "base_epochs": 0, "folds": 2, "workers": 0, "passes": 0, "seed": 0, "faulty": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                found.append(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")
        if self.fold != "all" and not (self.fold.isdecimal() and int(self.fold) < self.folds):
            found.append(f"--fold must be 'all' or between 0 and {self.folds - 1}, not {self.fold!r}")
        if self.fold == "all" and self.protocol == "published":
            found.append("--fold all needs --protocol unseen-subjects: the published split has no folds")
        if self.split and (self.fold == "all" or self.protocol == "published"):
            found.append("--split is one fold of unseen-subjects; leave out --fold all and --protocol published")
        if self.base == "scratch" and self.train == "head":
            found.append("--train head needs a trained base: frozen random backbones make features that say nothing; "
                         "use --train full, or --base train")
        if self.base_lighting != "all" and not set(self.lightings) <= set(LIGHTINGS):
            known = ", ".join(LIGHTINGS)
            found.append(f"--base-lighting must be all, or of {known} with commas between, not {self.base_lighting!r}")
        if self.base_lighting != "all" and self.base == "scratch":
            found.append(f"--base-lighting {self.base_lighting} says what a base is trained on: add --base train")
        if self.local_method != "none" and self.train == "full":
            found.append(f"--local-method {self.local_method} trains the head: add --train head")
        found += self._faults_of_batch_norm()
        if not 0 < self.alpha < math.inf:
            found.append(f"--alpha must be above 0 and finite, not {self.alpha}")
        if not 0 <= self.proximal < math.inf:
            found.append(f"--proximal must not be negative and be finite, not {self.proximal}")
        if self.data and self.design != "see-like":
            found.append(f"--design {self.design} is of synthetic data; leave out --data")
        if self.cohort != "all" and not _is_cohort(self.cohort):
            found.append(f"--cohort must be 'all', a whole number or a share between 0 and 1, not {self.cohort!r}")
        if self.size and not 16 <= self.size <= 512:
            found.append(f"--size must be 0 (the model's own) or between 16 and 512 pixels, not {self.size}")
        config = find_config(self.preset)
        if config and config.fixed_size and self.picture_size != config.input_size:
            found.append(f"--size must be 0: {self.model} takes pictures of {config.input_size} pixels only")
        if self.imagenet and config and not (isinstance(config, McoeConfig) and config.norm == "batch"):
            found.append(f"--imagenet has weights of ResNet-18, which {self.preset} does not contain; leave it out")
        for build in (lambda: self.rates, self._fine_tune, self._synthetic, lambda: self.optimiser, self.rule_settings):
            try:
                build()
            except SettingsError as fault:
                found += fault.faults
        return found

    def _faults_of_batch_norm(self) -> list[str]:
        if self.batch_norm == "auto":
            return []
        flag, found = f"--batch-norm {self.batch_norm}", []
        if self.train == "head":
            found.append(f"{flag} is of trained backbones, and --train head freezes them: use --train full")
        if self.batch_norm in ("frozen", "local") and self.base == "scratch":
            found.append(f"{flag} relies on a trained base's statistics, and --base scratch has none: use --base train")
        if self.model in GROUP_PRESETS:
            found.append(f"{flag}: {self.model} has group normalisation already; leave it out")
        elif self.batch_norm == "group" and self.preset not in GROUP_PRESETS:
            there = ", ".join(name.removesuffix(GROUP_ENDING) for name in GROUP_PRESETS)
            found.append(f"{flag} is there for --model {there}, not for {self.model}")
        if self.batch_norm == "group" and self.base not in ("train", "scratch"):
            found.append(f"{flag} changes what the base is: use --base train or --base scratch")
        return found

    def _fine_tune(self) -> FineTuneSettings:
        return FineTuneSettings(self.local_epochs, self.batch_size, self.lr, balance=self.balance)

    def _synthetic(self) -> SyntheticSettings | None:
        if self.data:
            return None
        return SyntheticSettings(
            subjects=self.subjects,
            sequences=self.sequences or None,
            size=self.picture_size if find_config(self.preset) else 64,
            design=self.design if self.design in DESIGNS else "see-like",
            seed=self.seed,
        )

    @property
    def picture_size(self) -> int:
        """Side of the pictures the network sees, in pixels."""
        return self.size or config_of(self.preset).input_size

    @property
    def preset(self) -> str:
        """The model's name in files and messages: the setting's, or one that no other code of somebody's own has."""
        if is_own("model", self.model):
            return locate("model", self.model).label
        return self.model + GROUP_ENDING if self.batch_norm == "group" else self.model

    @property
    def synthetic(self) -> SyntheticSettings | None:
        """The synthetic data set to make, or None when ``data`` names a real one."""
        return self._synthetic()

    @property
    def lightings(self) -> tuple[str, ...]:
        """The lightings of the clips that the base is trained on."""
        return LIGHTINGS if self.base_lighting == "all" else tuple(self.base_lighting.split(","))

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates that are tried on a client, ascending: the grid, or the one. Raises SettingsError."""
        if not self.grid:
            return (self.lr,)
        try:
            rates = sorted(float(text) for text in self.grid.split(","))
        except ValueError as fault:
            raise SettingsError([f"--grid must be learning rates with commas between, not {self.grid!r}"]) from fault
        if len(set(rates)) != len(rates) or not all(0 < rate <= 1 for rate in rates):
            raise SettingsError([f"--grid must be different learning rates above 0 and at most 1, not {self.grid!r}"])
        return tuple(rates)

    def of_folds(self) -> tuple[SimulationSettings, ...]:
        """The settings of each run that these ask for: one for every fold with ``all``, else these alone."""
        if self.fold != "all":
            return (self,)
        return tuple(dataclasses.replace(self, fold=str(number)) for number in range(self.folds))

    @property
    def base_recipe(self) -> Recipe:
        """How the base, and everything else that starts from scratch, is trained centrally: as its model says."""
        config = config_of(self.preset)
        recipe = config.published_recipe if self.protocol == "published" else config.recipe
        epochs = self.base_epochs or recipe.training.epochs
        return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=epochs))

    @property
    def client_recipe(self) -> FineTuneSettings:
        """How a client trains in one round: pictures can be augmented, cached features cannot.

        At the first learning rate, where a grid has several: a run looks up what it has chosen (``Scene``).
        """
        return dataclasses.replace(
            self._fine_tune(),
            learning_rate=self.rates[0],
            batch_norm=self._statistics,
            augment=self.train == "full" and self.protocol != "published",
        )

    @property
    def _statistics(self) -> BatchNorm:
        """What becomes of a batch normalisation's statistics on a client; a network without any does not care."""
        if self.batch_norm == "auto":
            # A client's batches show one person under one light: statistics learned from them fit nobody else.
            return "running" if self.base == "scratch" else "frozen"
        return "running" if self.batch_norm in ("local", "shared") else "frozen"

    def rule_settings(self) -> RuleSettings:
        """Bounds of the aggregation rule."""
        return RuleSettings(faulty=self.faulty, router=self.router)

    @property
    def optimiser(self) -> OptimiserSettings:
        """The server's optimiser."""
        moments = (self.server_momentum, self.server_second_momentum, self.server_adaptivity)
        return OptimiserSettings(self.server_optimiser, self.server_lr or None, *moments)

    @property
    def processes(self) -> int:
        """Worker processes: as asked, or one for every processor."""
        return self.workers or os.cpu_count() or 1

    def to_toml(self) -> str:
        """The settings as a TOML file that `--config` reads."""
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # JSON writes strings, numbers and booleans as TOML does.
            lines.append(f"{field.name.replace('_', '-')} = {json.dumps(value)}")
        return "\n".join(lines) + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, by field name. Raises DataMissing or SettingsError."""
    if not path.is_file():
        raise DataMissing(f"there is no configuration file {path}")
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise SettingsError([f"{path} is not TOML: {fault}"]) from fault
    return {key.replace("-", "_"): value for key, value in raw.items()}


def make_settings(scale: str, *layers: Mapping[str, Any]) -> SimulationSettings:
    """Defaults of the scale, then each layer over the one before; None means not given. Raises SettingsError."""
    if scale not in SCALES:
        raise SettingsError([f"--scale must be one of {', '.join(SCALES)}, not {scale!r}"])
    merged: dict[str, Any] = dict(SCALES[scale])
    for layer in layers:
        merged |= {key: value for key, value in layer.items() if value is not None}
    kinds = {field.name: type(field.default) for field in dataclasses.fields(SimulationSettings)}
    faults = [f"unknown setting {key.replace('_', '-')!r}" for key in merged if key not in kinds]
    for key, value in merged.items():
        if key in kinds and type(value) is not kinds[key]:
            if kinds[key] is float and type(value) is int:
                merged[key] = float(value)
            elif kinds[key] is str and type(value) in (int, float):
                merged[key] = str(value)
            else:
                faults.append(f"{key.replace('_', '-')} must be a {kinds[key].__name__}, not {value!r}")
    if faults:
        raise SettingsError(faults)
    merged |= {field: absolute(kind, merged[field]) for kind, field in KINDS.items() if field in merged}
    return SimulationSettings(**merged)


def _is_cohort(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and (0 < value < 1 or (value >= 1 and value.is_integer()))
