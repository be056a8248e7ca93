"""The training loop: it learns, it is reproducible, it resumes, and it trains what it is told to train."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mcoe_model.errors import SettingsError
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import Epoch, fine_tune, measure
from mcoe_model.learning.samples import FeatureSamples, PictureSamples, encode_clips, measure_normalisation
from mcoe_model.learning.settings import Decay, FineTuneSettings, rate_factor
from mcoe_model.learning.weights import tensors_of
from mcoe_model.networks import build
from mcoe_model.networks.cmfnet import CmfnetConfig

SETTINGS = FineTuneSettings(epochs=2, batch_size=8, learning_rate=1e-3, batch_norm="running", augment=True)


@pytest.fixture(scope="module")
def samples(clips):
    indices = tuple(range(len(clips.records)))
    return PictureSamples(clips, indices, measure_normalisation(clips, indices))


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def train(samples, settings=SETTINGS, *, train_mode="full", keys=(0, "test"), **more):
    model = build("mcoe-tiny", seed=3)
    experts = fine_tune(model, samples, settings, train_mode=train_mode, keys=keys, **more)
    return tensors_of(model), experts


def test_training_lowers_the_loss(samples):
    curve = []
    train(samples, replace(SETTINGS, epochs=25, learning_rate=3e-3), on_epoch=curve.append)
    assert [epoch.number for epoch in curve] == list(range(1, 26))
    assert curve[-1].loss < 0.85 * curve[0].loss
    assert curve[-1].accuracy > curve[0].accuracy


def test_equal_keys_give_equal_bits_and_other_keys_do_not(samples):
    first, second, other = train(samples)[0], train(samples)[0], train(samples, keys=(0, "other"))[0]
    assert equal(first, second)
    assert not equal(first, other)


def test_a_run_that_stops_after_any_epoch_and_goes_on_gives_the_same_bits(samples, tmp_path):
    whole, _ = train(samples, replace(SETTINGS, epochs=3))

    class Stop(Exception):
        pass

    def stop_after_two(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise Stop

    checkpoint = tmp_path / "training.checkpoint"
    with pytest.raises(Stop):
        train(
            samples, replace(SETTINGS, epochs=3), checkpoint=Checkpoint(checkpoint, interval=0), on_epoch=stop_after_two
        )
    assert checkpoint.exists()
    seen = []
    resumed, _ = train(
        samples, replace(SETTINGS, epochs=3), checkpoint=Checkpoint(checkpoint, interval=0), on_epoch=seen.append
    )
    assert [epoch.number for epoch in seen] == [3]
    assert equal(resumed, whole)
    assert not checkpoint.exists()


def test_head_mode_leaves_the_backbones_alone(samples, clips):
    start = tensors_of(build("mcoe-tiny", seed=3))
    model = build("mcoe-tiny", seed=3).eval()
    features = encode_clips(model, clips, samples.indices, samples.normalisation)
    trained, _ = train(features, replace(SETTINGS, augment=False), train_mode="head")
    changed = {name for name in trained if not np.array_equal(trained[name], start[name])}
    assert changed
    assert not any(name.startswith("backbones.") for name in changed)


def test_frozen_batch_normalisation_keeps_its_statistics_and_running_does_not(samples):
    start = tensors_of(build("mcoe-tiny", seed=3))
    for policy, kept in (("frozen", True), ("running", False)):
        trained, _ = train(samples, replace(SETTINGS, batch_norm=policy))
        statistics = [name for name in trained if "running_mean" in name]
        assert all(np.array_equal(trained[name], start[name]) for name in statistics) is kept


def test_only_experts_that_were_chosen_are_named(samples):
    _, experts = train(samples, replace(SETTINGS, epochs=1))
    assert experts
    assert list(experts) == sorted(set(experts))
    assert set(experts) <= set(range(8))


def test_experts_that_nothing_was_routed_to_stay_as_they_are(samples):
    settings = replace(SETTINGS, epochs=1, weight_decay=0.1)
    start = tensors_of(build("mcoe-tiny", seed=3))
    trained, experts = train(samples, settings)
    for expert in set(range(8)) - set(experts):
        names = [name for name in trained if name.startswith(f"moe.experts.{expert}.")]
        assert all(np.array_equal(trained[name], start[name]) for name in names)


def test_the_balancing_term_evens_out_the_expert_load(samples):
    def spread(balance):
        model = build("mcoe-tiny", seed=3)
        settings = replace(SETTINGS, epochs=6, balance=balance, augment=False)
        fine_tune(model, samples, settings, train_mode="full", keys=(0, "balance"))
        return np.std(measure(model, samples).router.load)

    assert spread(1.0) < spread(0.0)


def test_measure_counts_every_clip_once_and_leaves_the_mode_alone(samples):
    model = build("mcoe-tiny", seed=3).train()
    found = measure(model, samples, batch_size=5)
    assert model.training
    assert found.router.faults(examples=len(samples.names), experts=8, top_k=2) == []
    assert found.loss == pytest.approx(measure(model, samples, batch_size=64).loss, rel=1e-5)


def test_features_and_pictures_of_the_same_windows_agree(samples, clips):
    model = build("mcoe-tiny", seed=3).eval()
    features = encode_clips(model, clips, samples.indices, samples.normalisation)
    windows = np.array([[0, 4, 8, 12], [1, 5, 9, 13]])
    both = (each.head_inputs(model, [2, 5], windows, None) for each in (samples, features))
    for direct, cached in zip(*both, strict=True):
        np.testing.assert_allclose(direct.detach().numpy(), cached.numpy(), rtol=2e-4, atol=2e-5)
    assert isinstance(features, FeatureSamples) and features.lengths == samples.lengths


def test_settings_out_of_bounds_are_listed_together():
    with pytest.raises(SettingsError) as caught:
        FineTuneSettings(epochs=0, batch_size=0, learning_rate=float("nan"), schedule="never")
    assert len(caught.value.faults) == 4


def small_cmfnet(seed=3):
    torch.manual_seed(seed)
    return CmfnetConfig("small", input_size=32, filters=4, dense=(16, 8), units=16, dropout=0.1).make()


def test_a_model_of_whole_clips_learns_by_the_same_loop(samples):
    """Its class weights come from the clips that are learned; nothing of it is routed."""
    model, curve = small_cmfnet(), []
    recipe = replace(SETTINGS, epochs=4, learning_rate=3e-3, augment=False)
    assert fine_tune(model, samples, recipe, train_mode="full", keys=(0,), on_epoch=curve.append) == ()
    assert curve[-1].loss < 0.95 * curve[0].loss
    again = small_cmfnet()
    fine_tune(again, samples, recipe, train_mode="full", keys=(0,))
    assert equal(tensors_of(again), tensors_of(model))
    before = tensors_of(model)
    fine_tune(model, samples, replace(recipe, epochs=1), train_mode="head", keys=(1,))
    after = tensors_of(model)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed and not any(name.startswith("backbones.") for name in changed)
    said = evaluate(model, samples)
    assert said.logits.shape == (len(samples.names), 7) and said.probability.tolist() == [1.0] * len(samples.names)


def test_a_recipe_says_how_its_rate_falls_in_steps():
    factors = [rate_factor("step", share=0.0, step=epoch, decay=Decay(0.9, 40)) for epoch in (0, 39, 40, 199)]
    assert factors == pytest.approx([1, 1, 0.9, 0.9**4])
