"""One device learns one stream with one method: lesson after lesson, asked of every domain after every stage.

Letters: T stages, N clips that are asked of, c emotions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import SettingsError
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.method import Retention
from mcoe_model.learning.methods import MethodSettings, retention
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet
from mcoe_model.streams import Key
from simulations.continual_settings import OwnMethod
from simulations.own import make
from simulations.streams import Clips, DeviceStream, lessons


@dataclass(frozen=True)
class Known:
    """Features of clips by index, their lightings, and the labels that learning is told (right or wrong)."""

    samples: FeatureSamples
    position: dict[int, int]
    lightings: dict[int, str]
    told: dict[int, int]

    def asked(self, clips: Clips) -> FeatureSamples:
        """These clips with their true emotions."""
        return self.samples.at([self.position[clip] for clip in clips])

    def learned(self, clips: Clips) -> FeatureSamples:
        """These clips with the labels that they were given."""
        return replace(self.asked(clips), labels=np.array([self.told[clip] for clip in clips], np.int64))


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked after every stage of a stream: its clips, ascending, with their true emotions.

    ``held_out`` and ``unseen`` say which of them are asked for which stage's domain.
    """

    clips: Clips
    emotions: NDArray[np.int64]  # (N,)
    held_out: NDArray[np.bool_]  # (T, N)
    unseen: NDArray[np.bool_]  # (T, N)

    @staticmethod
    def of(stream: DeviceStream, known: Known) -> Questions:
        clips = tuple(sorted({clip for stage in stream.stages for clip in (*stage.held_out, *stage.unseen)}))
        return Questions(
            clips,
            known.asked(clips).labels,
            np.array([np.isin(clips, stage.held_out) for stage in stream.stages]),
            np.array([np.isin(clips, stage.unseen) for stage in stream.stages]),
        )


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of a stream: what was predicted after every stage, the base first, and the most bytes kept.

    ``predicted`` is the share of each clip's windows that was taken for each emotion. ``rejected``: how many of the
    updates went into no model, since they or their round were not fit; alone there are none.
    """

    questions: Questions
    predicted: NDArray[np.float32]  # (T + 1, N, c)
    bytes_kept: int
    rejected: int = 0

    @cached_property
    def correct(self) -> NDArray[np.float64]:
        """How much of each clip was recognised: (T + 1, N)."""
        emotions = self.questions.emotions
        shares: NDArray[np.float64] = self.predicted[:, np.arange(len(emotions)), emotions].astype(np.float64)
        return shares

    @cached_property
    def own(self) -> NDArray[np.float64]:
        """R on own held-out clips: (T + 1, T)."""
        return _accuracy(self.correct, self.questions.held_out)

    @cached_property
    def unseen(self) -> NDArray[np.float64]:
        """R on unseen people: (T + 1, T)."""
        return _accuracy(self.correct, self.questions.unseen)


def learn_stream(
    base: MCOENet,
    known: Known,
    stream: DeviceStream,
    method: MethodSettings | OwnMethod,
    *,
    limit_bytes: int,
    recipe: FineTuneSettings,
    lesson_clips: int,
    exact: bool,
    keys: tuple[Key, ...],
) -> Learned:
    """Learn the stream from the base, which stays as it is.

    ``exact`` asks every window that a clip can be sampled at, else the middle one alone. Every method gets the same
    clips in the same order with the same windows. ``joint`` begins every stage from the base, with all clips so far and
    the same epochs, so that its last model was shown each clip as often as any method shows it.
    Raises SettingsError when the method keeps more than ``limit_bytes``.
    """
    model = copy.deepcopy(base)
    kept = begin(method, copy.deepcopy(base), limit_bytes)
    questions = Questions.of(stream, known)
    said = predict(model, known, [questions], exact)
    most, number = 0, 0
    for stage, content in enumerate(stream.stages):
        if is_joint(method):
            model = copy.deepcopy(base)
            so_far = tuple(clip for one in stream.stages[: stage + 1] for clip in one.learned)
            fine_tune(model, known.learned(so_far), recipe, train_mode="head", keys=(*keys, "joint", stage))
        else:
            for clips in lessons(content, lesson_clips):
                samples = known.learned(clips)
                doing = kept.method(model) if kept else None
                fine_tune(model, samples, recipe, train_mode="head", keys=(*keys, "lesson", number), method=doing)
                if kept:
                    kept = within(kept.after(model, samples, [known.lightings[clip] for clip in clips]), limit_bytes)
                    most = max(most, kept.size_bytes)
                number += 1
        said += predict(model, known, [questions], exact)
    return Learned(questions, np.stack(said), most)


def is_joint(method: MethodSettings | OwnMethod) -> bool:
    """Whether this is no method but the upper line."""
    return isinstance(method, MethodSettings) and method.name == "joint"


def begin(
    method: MethodSettings | OwnMethod, base: MCOENet, limit_bytes: int, *, in_rounds: bool = False
) -> Retention | None:
    """What a method keeps before its first lesson. Raises as `retention`, and as `own.make` for one's own."""
    if isinstance(method, MethodSettings):
        return retention(method, base, limit_bytes, in_rounds=in_rounds)
    made: Retention = make(method.own, base, limit_bytes)
    return within(made, limit_bytes)


def within(kept: Retention, limit_bytes: int) -> Retention:
    """What is kept, if it is within the limit. Raises SettingsError."""
    if kept.size_bytes > limit_bytes:
        name, size = type(kept).__name__, kept.size_bytes
        raise SettingsError([f"{name} keeps {size} bytes beside the model, more than the limit of {limit_bytes}"])
    return kept


def predict(
    model: MCOENet, known: Known, questions: Sequence[Questions], exact: bool
) -> list[NDArray[np.float32]]:
    """What the model says of the clips of each of these questions: (N, c) each, as `Learned` has it."""
    asked = tuple(sorted({clip for one in questions for clip in one.clips}))
    said = _predicted(model, known.asked(asked), exact)
    place = {clip: row for row, clip in enumerate(asked)}
    return [said[[place[clip] for clip in one.clips]] for one in questions]


def _predicted(model: MCOENet, samples: FeatureSamples, exact: bool) -> NDArray[np.float32]:
    """Of every window, or of the middle one alone: (N, c)."""
    if exact:
        return evaluate(model, samples).predicted().astype(np.float32)
    return np.eye(len(EMOTIONS), dtype=np.float32)[list(measure(model, samples).predicted)]


def _accuracy(correct: NDArray[np.float64], domains: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over the clips (T, N) of each domain: (T + 1, N) -> (T + 1, T)."""
    return np.stack([correct[:, clips].mean(axis=1) for clips in domains], axis=1)
