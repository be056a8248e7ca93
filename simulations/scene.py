"""Everything a process needs to know of a run, found again from the run's folder: settings, clips, who is who.

A run's folder says it all, so that a worker process, a Flower node or a resumed run needs its path and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from platformdirs import user_cache_path

from mcoe_model.data.cache import Clips
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import GENERATOR, write_see
from mcoe_model.errors import NotResumable
from mcoe_model.files import read_json
from mcoe_model.learning.features import fixed_samples, frozen_samples
from mcoe_model.learning.samples import PictureSamples, Samples, measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import SEE_NORMALISATION, ModelCard, Normalisation
from mcoe_model.networks import Network
from mcoe_model.progress import Progress
from simulations.own import install, recorded
from simulations.parts import Parts
from simulations.settings import SimulationSettings


@dataclass(frozen=True)
class Paths:
    """The files of a run."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run.json"

    @property
    def parts(self) -> Path:
        return self.folder / "parts.json"

    @property
    def fold(self) -> Path:
        """Who is in which part, for ``--split`` of another run; not under `published`, which divides sequences."""
        return self.folder / "fold.json"

    @property
    def base(self) -> Path:
        return self.arm("base")

    def arm(self, name: str) -> Path:
        """The model of an arm that is trained centrally."""
        return self.folder / "arms" / f"{name}.safetensors"

    def checkpoint(self, name: str) -> Path:
        """Where the training of an arm goes on after a kill."""
        return self.folder / "arms" / f"{name}.checkpoint"

    def curve(self, name: str) -> Path:
        """Loss and accuracy of every epoch of an arm's training."""
        return self.folder / "curves" / f"{name}.csv"

    def predictions(self, name: str, part: str) -> Path:
        """What an arm, or the model of a round, said of a part."""
        return self.folder / "predictions" / f"{name}-{part}.npz"

    @property
    def registry(self) -> Path:
        return self.folder / "registry.sqlite"

    @property
    def models(self) -> Path:
        """The artifacts of the registry's models."""
        return self.folder / "models"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"


@dataclass(frozen=True)
class Scene:
    """A run as every process sees it."""

    paths: Paths
    settings: SimulationSettings
    clips: Clips
    parts: Parts

    def indices(self, part: str, subject: str | None = None) -> tuple[int, ...]:
        """The clips of a part, or of one subject (or client) in it, in record order."""
        names = set(getattr(self.parts, part))
        return tuple(
            index
            for index, record in enumerate(self.clips.records)
            if record.name in names and subject in (None, self._owner(index))
        )

    def subjects(self, part: str) -> tuple[str, ...]:
        """The subjects that have clips in a part, or the clients, in ascending order."""
        return tuple(sorted({self._owner(index) for index in self.indices(part)}))

    def _owner(self, index: int) -> str:
        """Whose a clip is: the client's that learns it, else its subject's."""
        record = self.clips.records[index]
        return self._clients_of.get(record.name, record.subject)

    @cached_property
    def _clients_of(self) -> dict[str, str]:
        return dict(zip(self.parts.clients, self.parts.owners, strict=False))

    def normalisation(self) -> Normalisation:
        """Measured on the base subjects; SEE's own constants under `published`."""
        if self.settings.protocol == "published":
            return SEE_NORMALISATION
        return measure_normalisation(self.clips, self.indices("base"))

    def client_recipe(self, arm: str) -> FineTuneSettings:
        """How an arm trains on clients' clips: at the learning rate that tuning chose for it, if it has."""
        tuned = read_json(self.paths.run)["tuning"]["arms"].get(arm)
        recipe = self.settings.client_recipe
        return replace(recipe, learning_rate=tuned["chosen"]) if tuned else recipe

    def training_samples(self, model: Network, card: ModelCard, indices: Iterable[int]) -> Samples:
        """Clips to fine-tune on: features of the frozen backbones for `head`, pictures for `full`."""
        if self.settings.train == "full":
            return PictureSamples(self.clips, tuple(indices), card.generation.normalisation)
        return self._features(model, card, indices)

    def evaluation_samples(self, model: Network, card: ModelCard, indices: Iterable[int]) -> Samples:
        """Clips to evaluate on; features are kept where the backbones do not change from round to round."""
        if self.settings.train == "full":
            return fixed_samples(model, card.generation, self.clips, indices)
        return self._features(model, card, indices)

    def _features(self, model: Network, card: ModelCard, indices: Iterable[int]) -> Samples:
        return frozen_samples(model, card.generation, self.clips, indices, cache_folder() / "features")


def fold_folder(folder: Path, settings: SimulationSettings) -> Path:
    """Where, in a run over all folds, the run of one fold is."""
    return folder / f"fold-{settings.fold}"


def cache_folder() -> Path:
    """Where data, decoded pictures and features stay between runs: MCOE_CACHE, else the user's cache folder."""
    return Path(os.environ["MCOE_CACHE"]) if "MCOE_CACHE" in os.environ else user_cache_path("mcoe")


def synthetic_root(settings: SyntheticSettings, workers: int, progress: Progress) -> Path:
    """The SEE folder of a synthetic data set, which is made once and kept in the cache."""
    made = f"{GENERATOR}/{json.dumps(settings.as_json(), sort_keys=True)}"
    root = cache_folder() / "synthetic" / hashlib.sha256(made.encode()).hexdigest()[:16]
    write_see(root, settings, workers=workers, progress=progress)
    return root


@lru_cache(maxsize=1)
def open_scene(folder: Path) -> Scene:
    """The scene of a prepared run. Raises NotResumable when the folder holds none."""
    paths = Paths(folder)
    try:
        run = read_json(paths.run)
        install(recorded(run))
        settings, clips = SimulationSettings(**run["settings"]), Clips(Path(run["clips"]))
        return Scene(paths, settings, clips, Parts.read(paths.parts))
    except (FileNotFoundError, KeyError, ValueError, TypeError) as fault:
        raise NotResumable(f"{folder} holds no prepared run ({fault}); start one with see_by_subject.py") from fault
