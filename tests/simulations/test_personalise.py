"""Fitting a model to one wearer without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.weights import load_model, tensors_of
from simulations.personalise import use_mixture_weights, with_class_priors
from simulations.scene import open_scene


def test_class_priors_move_what_is_said_towards_what_the_wearer_shows(prepared_base: Path) -> None:
    scene = open_scene(prepared_base)
    model, card = load_model(scene.paths.base)
    own = scene.evaluation_samples(model, card, scene.indices("clients"))
    assert isinstance(own, FeatureSamples)
    always = replace(own, labels=np.full(len(own.labels), 3))
    said = evaluate(model, own)
    before, after = said.mean_softmax(), with_class_priors(model, always, said).mean_softmax()
    assert (after[:, 3] > before[:, 3]).all()
    assert np.array_equal(said.logits, evaluate(model, own).logits)  # the model itself is as it was


def test_mixture_weights_give_an_expert_the_share_that_one_step_of_maximisation_says(prepared_base: Path) -> None:
    scene = open_scene(prepared_base)
    model, card = load_model(scene.paths.base)
    own = scene.evaluation_samples(model, card, scene.indices("clients"))
    assert isinstance(own, FeatureSamples)
    with torch.no_grad():
        for number, expert in enumerate(model.moe.experts):  # one expert is right about everything
            expert.classifier.bias += 20.0 * (torch.arange(7) == (3 if number == 1 else 4))
    before = tensors_of(model)
    use_mixture_weights(model, replace(own, labels=np.full(len(own.labels), 3)))
    after = tensors_of(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"moe.router.down.bias"}
    moved = after["moe.router.down.bias"] - before["moe.router.down.bias"]
    assert moved.argmax() == 1 and moved[1] > 0 > np.delete(moved, 1).max()
