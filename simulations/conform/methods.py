"""What a continual method has to be (`mcoe_model.learning.method.Retention`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.method import ContinualMethod, Retention
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import tensors_of
from mcoe_model.model_file import Tensors
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, build, picture_encoder
from mcoe_model.streams import stream
from mcoe_model.update import is_head
from simulations.conform.properties import Fresh, Properties, expect

#: What a method may keep [bytes]: room for the head of the model that is tried, and for some clips.
_LIMIT = 1_000_000
_LESSONS, _CLIPS, _PICTURES = 4, 6, 5
_RECIPE = FineTuneSettings(epochs=2, batch_size=4, learning_rate=2e-3)


def beginning() -> tuple[MCOENet, int]:
    """What a method is made with: the model that a device begins from, and the limit [bytes]."""
    return picture_encoder(build("mcoe-tiny", seed=0).eval()), _LIMIT


def _says_its_size(fresh: Fresh) -> None:
    kept: Retention = fresh()
    for size in (kept.size_bytes, *(after.size_bytes for _, after in _lessons(kept))):
        expect(type(size) is int and size >= 0, f"size_bytes must be a whole number of bytes, not {size!r}")
        expect(size <= _LIMIT, f"it keeps {size} bytes, and was told to keep at most {_LIMIT}")


def _methods(fresh: Fresh) -> None:
    model, _ = beginning()
    kept: Retention = fresh()
    for doing in (kept.method(model), *(after.method(model) for _, after in _lessons(kept))):
        expect(
            doing is None or isinstance(doing, ContinualMethod),
            f"method must give a ContinualMethod or None, not {type(doing).__name__}",
        )


def _finite(fresh: Fresh) -> None:
    for number, (model, _) in enumerate(_lessons(fresh()), 1):
        broken = [name for name, value in tensors_of(model).items() if not np.isfinite(value).all()]
        expect(not broken, f"after lesson {number} there are values that are not finite in {', '.join(broken[:3])}")


def _learns(fresh: Fresh) -> None:
    model, _ = beginning()
    before = _head(model)
    for learned, _ in _lessons(fresh()):
        model = learned
    expect(
        any(not np.array_equal(value, before[name]) for name, value in _head(model).items()),
        "after four lessons the model is what it was before: nothing was learned",
    )


def _backbones(fresh: Fresh) -> None:
    before = {name: value for name, value in tensors_of(beginning()[0]).items() if not is_head(name)}
    for model, _ in _lessons(fresh()):
        changed = [name for name, value in before.items() if not np.array_equal(tensors_of(model)[name], value)]
        expect(not changed, f"it changed {', '.join(changed[:3])}, which are frozen: cached features would be stale")


def _deterministic(fresh: Fresh) -> None:
    first, again = ([_head(model) for model, _ in _lessons(fresh())] for _ in range(2))
    for number, (one, other) in enumerate(zip(first, again, strict=True), 1):
        expect(
            all(np.array_equal(one[name], other[name]) for name in one),
            f"the same lessons gave other bits the second time, in lesson {number}; draw from `draws` alone",
        )


def _leaves_clips(fresh: Fresh) -> None:
    lessons = [_samples(number) for number in range(_LESSONS)]
    before = copy.deepcopy(lessons)
    for _ in _lessons(fresh(), lessons):
        pass
    for one, other in zip(lessons, before, strict=True):
        same = all(
            np.array_equal(mine[key], theirs[key])
            for mine, theirs in zip(one.features, other.features, strict=True)
            for key in theirs
        )
        expect(same and np.array_equal(one.labels, other.labels), "the clips that were given have changed")


def _lessons(kept: Retention, samples: list[FeatureSamples] | None = None) -> Iterator[tuple[MCOENet, Retention]]:
    """The model after each lesson, and what is kept then."""
    model, _ = beginning()
    for number, clips in enumerate(samples or [_samples(number) for number in range(_LESSONS)]):
        doing = kept.method(model)
        fine_tune(model, clips, _RECIPE, train_mode="head", keys=("conformance", number), method=doing)
        with torch.random.fork_rng():
            kept = kept.after(model, clips, ["normal"] * _CLIPS)
        yield copy.deepcopy(model), kept


def _samples(number: int) -> FeatureSamples:
    """The clips of one lesson, as noise of features."""
    random = stream("conformance lesson", number)
    width = beginning()[0].config.features
    shape = (_PICTURES, width)
    return FeatureSamples(
        tuple(f"lesson-{number}-clip-{clip}" for clip in range(_CLIPS)),
        np.array([(number + clip) % len(EMOTIONS) for clip in range(_CLIPS)]),
        tuple(
            {(modality, "any"): random.standard_normal(shape).astype(np.float32) for modality in ("frame", "event")}
            for _ in range(_CLIPS)
        ),
    )


def _head(model: MCOENet) -> Tensors:
    return {name: value for name, value in tensors_of(model).items() if is_head(name)}


PROPERTIES: Properties = {
    "says how many bytes it keeps, and keeps within its limit": _says_its_size,
    "gives a method for a lesson, or none": _methods,
    "leaves every value finite": _finite,
    "lets the model learn": _learns,
    "leaves the frozen backbones as they are": _backbones,
    "gives the same bits for the same lessons": _deterministic,
    "leaves the clips as they are": _leaves_clips,
}
