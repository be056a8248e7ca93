"""What hostile clients reach through whole rounds, in numbers: a fifth of them, on a classifier of seven classes.

A softmax regression in place of a network, so that accuracy means something within a second. Real networks and more
attacks: `benchmarks/attacks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from migrated import migrated_file
from numpy.typing import NDArray
from toy_fleet import CARD, EXPERTS, enlist, honest_reply

from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import Tensors
from mcoe_model.streams import stream
from server.aggregation.rule import RuleSettings
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings

Array = NDArray[np.float64]

CLASSES, FEATURES = 7, 20
#: The last two columns: one that no honest clip has, and the bias.
PATCH, COLUMNS = FEATURES, FEATURES + 2
CLIENTS, HOSTILE, CLIPS, ROUNDS = 5, 1, 70, 3
TARGET = 3
WEIGHT = "classifier.weight"


@dataclass(frozen=True)
class Clips:
    """Features (N, COLUMNS) and labels (N,)."""

    features: Array
    labels: NDArray[np.int64]

    def flipped(self) -> Clips:
        return Clips(self.features, (self.labels + 1) % CLASSES)

    def patched(self) -> Clips:
        """Every clip with the patch, which is to mean one class."""
        features = self.features.copy()
        features[:, PATCH] = 3.0
        return Clips(features, np.full_like(self.labels, TARGET))

    def and_also(self, others: Clips) -> Clips:
        return Clips(np.vstack([self.features, others.features]), np.concatenate([self.labels, others.labels]))


def clips_of(person: str, count: int = CLIPS) -> Clips:
    """Clips around the classes' middles, which are a little elsewhere for everybody."""
    random = stream(person, "clips")
    middles = stream("middles").normal(size=(CLASSES, FEATURES)) + random.normal(0, 0.3, size=(CLASSES, FEATURES))
    labels = np.arange(count) % CLASSES
    features = np.ones((count, COLUMNS))
    features[:, :FEATURES] = middles[labels] + random.normal(size=(count, FEATURES))
    features[:, PATCH] = 0.0
    return Clips(features, labels)


def trained(weight: Array, clips: Clips, steps: int = 10) -> Array:
    wanted = np.eye(CLASSES)[clips.labels]
    for _ in range(steps):
        scores = np.exp(clips.features @ weight.T - (clips.features @ weight.T).max(axis=1, keepdims=True))
        wrong = scores / scores.sum(axis=1, keepdims=True) - wanted
        weight = weight - 0.3 * wrong.T @ clips.features / len(clips.labels)
    return weight


def share_called(model: Tensors, clips: Clips) -> float:
    """The share of clips that the model gives their label."""
    found: Array = clips.features @ model[WEIGHT].T
    return float((found.argmax(axis=1) == clips.labels).mean())


Hostile = Callable[[Array, Clips], Array]


def published(folder: Path, rule: str, hostile: Hostile | None, claims: int = CLIPS) -> Tensors:
    """The model after some rounds in which one of five clients trains as ``hostile`` does and claims so many clips."""
    folder.mkdir()
    settings = RoundSettings(FineTuneSettings(), "head", rule, RuleSettings(faulty=HOSTILE))
    registry = Registry(open_database(sqlite_url(migrated_file(folder / "registry.sqlite"))), "attacked")
    engine = RoundEngine(registry, Artifacts(folder / "models"), folder / "spool", settings)
    base = trained(np.zeros((CLASSES, COLUMNS)), clips_of("nobody of the fleet"), steps=20)
    experts = {f"moe.experts.{expert}.weight": np.zeros(1, np.float32) for expert in range(EXPERTS)}
    engine.start_from({WEIGHT: base.astype(np.float32), **experts}, CARD)
    names = [f"client-{index}" for index in range(CLIENTS)]
    enlist(engine, *names)
    for _ in range(ROUNDS):
        current = engine.open(names)
        before = current.payload[WEIGHT].astype(np.float64)
        for index, name in enumerate(names):
            train, count = (hostile, claims) if hostile and index < HOSTILE else (trained, CLIPS)
            after = train(before, clips_of(name))
            reply = honest_reply(current.expectation, name, experts=(), examples=count)
            engine.receive(current, replace(reply, update={WEIGHT: (after - before).astype(np.float32)}))
        assert engine.finish(current)
    registry.engine.dispose()
    return engine.artifacts.get(str(registry.newest_model()))[0]


def flips(before: Array, clips: Clips) -> Array:
    return trained(before, clips.flipped())


def replaces(before: Array, clips: Clips) -> Array:
    """Model replacement with a backdoor, Bagdasaryan et al. 2020 (https://arxiv.org/abs/1807.00459), 50 times."""
    return before + 50 * (trained(before, clips.and_also(clips.patched())) - before)


def test_flipped_labels_of_a_fifth_cost_a_robust_rule_little(tmp_path: Path) -> None:
    """At most three points of accuracy, whatever they claim; the weighted mean loses more than thirty."""
    unseen = clips_of("somebody new", 1400)
    undisturbed = share_called(published(tmp_path / "undisturbed", "weighted-mean", None), unseen)
    left = {
        rule: share_called(published(tmp_path / rule, rule, flips, claims=1000), unseen)
        for rule in ("median", "trimmed-mean", "weighted-mean")
    }
    assert undisturbed > 0.9
    assert left["median"] >= undisturbed - 0.03 and left["trimmed-mean"] >= undisturbed - 0.03
    assert left["weighted-mean"] < undisturbed - 0.3


def test_the_norm_bound_keeps_a_replaced_models_backdoor_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of patched clips of other classes fewer than one in twenty is taken, under the plain mean; without it, half."""
    unseen = clips_of("somebody new", 1400)
    others = unseen.labels != TARGET
    patched = Clips(unseen.features[others], unseen.labels[others]).patched()
    bounded = published(tmp_path / "bounded", "weighted-mean", replaces)
    assert share_called(bounded, patched) < 0.05 and share_called(bounded, unseen) > 0.9
    monkeypatch.setattr(RoundEngine, "_norm_bound", lambda *_: None)
    assert share_called(published(tmp_path / "unbounded", "weighted-mean", replaces), patched) > 0.5
