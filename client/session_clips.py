"""A wearer's recorded and labelled sessions, as a client of the fleet learns from them: features, no pictures."""

from __future__ import annotations

from pathlib import Path

from client.enrolment import ClientPaths
from client.learner import Learned
from client.lesson_book import LessonBook
from client.lesson_samples import samples_of
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.learning.continual import continual_method
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.settings import ReplaySettings
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import ModelCard
from mcoe_model.networks import Network
from mcoe_model.update import TrainMode


class SessionClips:
    """The clips of the lesson book that await a round. ``model_file`` is a model of the fleet's generation.

    ``labels`` is whether the wearer agrees to their use. Without it there are no clips; the book keeps them.
    """

    def __init__(
        self, paths: ClientPaths, client_id: str, model_file: Path, lessons_key: bytes, *, labels: bool = True
    ) -> None:
        self.client_id = client_id
        self._labels = labels
        self._model = load_model(model_file)
        self._book = LessonBook(paths.lessons, lessons_key, self._model[1].generation.id)

    @property
    def learns(self) -> tuple[TrainMode, ...]:
        return ("head",)

    def clip_names(self) -> tuple[str, ...]:
        return self._book.waiting if self._labels else ()

    def model(self) -> tuple[Network, ModelCard]:
        return self._model

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        _only_heads(train_mode)
        return samples_of(self._book.clips(self.clip_names()))

    def method(self) -> ContinualMethod | None:
        """Clips of earlier rounds are replayed from the memory, which has those that await this one, too."""
        generation = self._model[1].generation.id
        try:
            content = self._book.read_memory()
            memory = ReplayMemory.from_bytes(content or b"", generation=generation)
        except DataInvalid:
            return None
        return continual_method(ReplaySettings(), memory.without(self._book.waiting))

    def tried(self, model: Network, train_mode: TrainMode) -> Samples:
        """Those that are held out."""
        _only_heads(train_mode)
        return samples_of(self._book.clips(self._book.held_out if self._labels else ()))


def take_clips(paths: ClientPaths, lessons_key: bytes, learned: Learned) -> None:
    """A round has the clips of this update: they await none of its generation any more."""
    LessonBook(paths.lessons, lessons_key, learned.meta.generation).take(learned.clips)


def _only_heads(train_mode: TrainMode) -> None:
    if train_mode != "head":
        raise DataMissing("recorded sessions are kept as features of frozen backbones: only the head can learn here")
