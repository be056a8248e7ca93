"""A wearer's clips in a folder of SEE's layout: what a client without a camera learns from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from client.enrolment import ClientPaths
from client.own_models import open_model
from mcoe_model.data.cache import Clips, open_clips
from mcoe_model.errors import DataMissing
from mcoe_model.learning.features import frozen_samples
from mcoe_model.learning.samples import PictureSamples, Samples
from mcoe_model.learning.weights import model_of
from mcoe_model.model_file import ModelCard
from mcoe_model.networks import Network
from mcoe_model.update import TRAIN_MODES, TrainMode


class FolderStore:
    """The sequences of one subject. ``model_file`` is a model of the fleet's generation.

    ``lessons_key`` opens one that was learned here (`client.own_models`).
    """

    def __init__(
        self,
        paths: ClientPaths,
        client_id: str,
        clips: Path,
        subject: str,
        model_file: Path,
        lessons_key: bytes | None = None,
    ) -> None:
        self.client_id = client_id
        self._paths = paths
        self._root = clips
        self._subject = subject
        self._model_file = model_file
        self._lessons_key = lessons_key

    @property
    def learns(self) -> tuple[TrainMode, ...]:
        return TRAIN_MODES

    def clip_names(self) -> tuple[str, ...]:
        return tuple(self._clips.records[index].name for index in self._indices)

    def model(self) -> tuple[Network, ModelCard]:
        return self._model

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        generation = self._model[1].generation
        if train_mode == "full":
            return PictureSamples(self._clips, self._indices, generation.normalisation)
        return frozen_samples(model, generation, self._clips, self._indices, self._paths.cache / "features")

    def method(self) -> None:
        """Nothing: every clip is there, and is learned each time."""

    def tried(self, model: Network, train_mode: TrainMode) -> Samples:
        """All of them: none is held out."""
        return self.samples(model, train_mode)

    @cached_property
    def _model(self) -> tuple[Network, ModelCard]:
        tensors, card = open_model(self._model_file, self._lessons_key)
        return model_of(tensors, card, self._model_file), card

    @cached_property
    def _clips(self) -> Clips:
        size = self._model[1].generation.input_size
        return open_clips(self._root, size=size, cache=self._paths.cache / "clips")

    @cached_property
    def _indices(self) -> tuple[int, ...]:
        """Raises DataMissing for a subject that the folder does not have."""
        found = tuple(i for i, record in enumerate(self._clips.records) if record.subject == self._subject)
        if not found:
            subjects = ", ".join(sorted({record.subject for record in self._clips.records})[:8])
            raise DataMissing(f"{self._root} has no clips of subject {self._subject}; it has {subjects}, ...")
        return found
