"""One device learns one stream with one method: lesson after lesson, asked of every domain after every stage.

Letters: T stages, N clips that are asked of.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import SettingsError
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.method import Retention
from mcoe_model.learning.methods import MethodSettings, retention
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.networks import MCOENet
from mcoe_model.streams import Key
from simulations.continual_settings import OwnMethod
from simulations.own import make
from simulations.streams import DeviceStream, lessons


@dataclass(frozen=True)
class Known:
    """Features of clips by index, their lightings, and the labels that learning is told (right or wrong)."""

    samples: FeatureSamples
    position: dict[int, int]
    lightings: dict[int, str]
    told: dict[int, int]

    def asked(self, clips: tuple[int, ...]) -> FeatureSamples:
        """These clips with their true emotions."""
        return self.samples.at([self.position[clip] for clip in clips])

    def learned(self, clips: tuple[int, ...]) -> FeatureSamples:
        """These clips with the labels that they were given."""
        return replace(self.asked(clips), labels=np.array([self.told[clip] for clip in clips], np.int64))


#: Accuracy on every stage's held-out clips and on its unseen ones: (T,) each.
Asked = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Learned:
    """What came of a stream: R on own held-out clips and on unseen people, (T + 1, T) each, and the most bytes kept.

    ``rejected``: how many of its updates went into no model, since they or their round were not fit; alone there are
    none.
    """

    own: NDArray[np.float64]
    unseen: NDArray[np.float64]
    bytes_kept: int
    rejected: int = 0

    @staticmethod
    def of(rows: Sequence[Asked], bytes_kept: int, rejected: int = 0) -> Learned:
        """From what was found after every stage, the base first."""
        own, unseen = (np.array(side) for side in zip(*rows, strict=True))  # (T + 1, T) each
        return Learned(own, unseen, bytes_kept, rejected)


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
    rows = accuracy(model, known, [stream], exact)
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
        rows += accuracy(model, known, [stream], exact)
    return Learned.of(rows, most)


def is_joint(method: MethodSettings | OwnMethod) -> bool:
    """Whether this is no method but the upper line."""
    return isinstance(method, MethodSettings) and method.name == "joint"


def begin(method: MethodSettings | OwnMethod, base: MCOENet, limit_bytes: int) -> Retention | None:
    """What a method keeps before its first lesson. Raises as `retention`, and as `own.make` for one's own."""
    if isinstance(method, MethodSettings):
        return retention(method, base, limit_bytes)
    made: Retention = make(method.own, base, limit_bytes)
    return within(made, limit_bytes)


def within(kept: Retention, limit_bytes: int) -> Retention:
    """What is kept, if it is within the limit. Raises SettingsError."""
    if kept.size_bytes > limit_bytes:
        name, size = type(kept).__name__, kept.size_bytes
        raise SettingsError([f"{name} keeps {size} bytes beside the model, more than the limit of {limit_bytes}"])
    return kept


def accuracy(model: MCOENet, known: Known, streams: Sequence[DeviceStream], exact: bool) -> list[Asked]:
    """The model's accuracy on every stream."""
    stages = [one for stream in streams for one in stream.stages]
    asked = tuple(sorted({clip for one in stages for clip in (*one.held_out, *one.unseen)}))
    correct = dict(zip(asked, _correct(model, known.asked(asked), exact), strict=True))
    return [
        (
            np.array([np.mean([correct[clip] for clip in one.held_out]) for one in stream.stages]),
            np.array([np.mean([correct[clip] for clip in one.unseen]) for one in stream.stages]),
        )
        for stream in streams
    ]


def _correct(model: MCOENet, samples: FeatureSamples, exact: bool) -> NDArray[np.float64]:
    """Whether each clip is recognised, or the probability that it is: (N,)."""
    if not exact:
        return np.array(measure(model, samples).hits, np.float64)
    expected = evaluate(model, samples).predicted()  # (N, c)
    correct: NDArray[np.float64] = expected[np.arange(len(samples.names)), samples.labels]
    return correct
