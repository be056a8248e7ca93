"""Exact evaluation: the expectation of random passes, independent of which clips are evaluated together."""

import numpy as np
import pytest

from mcoe_model.data.sampling import RandomWindow, window_law
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.features import cached_features, every_clip
from mcoe_model.learning.samples import encode_clips, measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard
from mcoe_model.networks import build


@pytest.fixture(scope="module")
def model():
    return build("mcoe-tiny", seed=5).eval()


@pytest.fixture(scope="module")
def normalisation(clips):
    return measure_normalisation(clips, range(4))


def test_every_window_is_scored_once_with_its_probability(model, clips, normalisation):
    said = evaluate(model, encode_clips(model, clips, range(3), normalisation))
    for clip in range(3):
        law = window_law(clips.n_frames(clip))
        here = said.clip == clip
        np.testing.assert_array_equal(said.window[here], law.windows[:, [0, -1]])
        np.testing.assert_array_equal(said.probability[here], law.probability)
    np.testing.assert_allclose(said.predicted().sum(axis=1), 1)
    np.testing.assert_allclose(said.mean_softmax().sum(axis=1), 1)


def test_a_clip_is_said_the_same_of_alone_or_among_others_in_any_order(model, clips, normalisation):
    together = evaluate(model, encode_clips(model, clips, [4, 1, 7], normalisation))
    alone = evaluate(model, encode_clips(model, clips, [1], normalisation))
    np.testing.assert_array_equal(together.logits[together.clip == 1], alone.logits)


def test_the_exact_score_is_what_random_passes_converge_to(model, clips, normalisation):
    indices = range(6)
    said = evaluate(model, encode_clips(model, clips, indices, normalisation))
    lengths = tuple(clips.n_frames(index) for index in indices)
    window = RandomWindow()
    passes = np.mean([said.random_pass(window, 1, number, lengths) for number in range(3000)], axis=0)
    np.testing.assert_allclose(passes, said.predicted(), atol=0.05)
    once, again = (said.random_pass(window, 1, 5, lengths) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_cached_features_are_the_same_bits_and_belong_to_one_generation(clips, normalisation, tmp_path):
    def generation_of(network):
        return Generation("mcoe-tiny", backbone_sha256(tensors_of(network)), 32, normalisation)

    first, other = build("mcoe-tiny", seed=5).eval(), build("mcoe-tiny", seed=6).eval()
    computed = cached_features(first, generation_of(first), clips, range(3), tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in files]
    again = cached_features(first, generation_of(first), clips, range(3), tmp_path)
    assert [path.stat().st_mtime_ns for path in files] == stamps, "the second time, nothing is computed"
    fresh = encode_clips(first, clips, range(3), normalisation)
    for streams, stored, anew in zip(computed.features, again.features, fresh.features, strict=True):
        for stream in streams:
            np.testing.assert_array_equal(streams[stream], stored[stream])
            np.testing.assert_array_equal(streams[stream], anew[stream])
    different = cached_features(other, generation_of(other), clips, range(3), tmp_path)
    assert not np.array_equal(different.features[0]["frame", "any"], computed.features[0]["frame", "any"])


def test_features_of_backbones_that_were_trained_on_come_from_no_cache(clips, normalisation, tmp_path):
    """Their generation is that of the lineage's first model."""
    first, trained = build("mcoe-tiny", seed=5).eval(), build("mcoe-tiny", seed=6).eval()
    card = ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors_of(first)), 32, normalisation), "test")
    every_clip(first, card, clips, tmp_path)
    cached = sorted(tmp_path.rglob("*.safetensors"))
    assert len(cached) == len(clips.records)
    found, fresh = every_clip(trained, card, clips, tmp_path), encode_clips(trained, clips, [0], normalisation)
    assert found.names == tuple(record.name for record in clips.records)
    np.testing.assert_array_equal(found.features[0]["frame", "any"], fresh.features[0]["frame", "any"])
    assert sorted(tmp_path.rglob("*.safetensors")) == cached


def test_normalisation_is_the_mean_and_sd_of_all_pixels(clips):
    measured = measure_normalisation(clips, range(3))
    frames = np.concatenate([np.asarray(clips.pictures(index)[0]).reshape(-1) for index in range(3)]) / 255
    assert measured.frame_mean == pytest.approx(frames.mean())
    assert measured.frame_sd == pytest.approx(frames.std())
