"""What an update holds: the same function on both sides, and the arithmetic of a delta."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mcoe_model.update import (
    TensorSpec,
    TrainMode,
    block_norms,
    expert_of,
    is_head,
    make_update,
    manifest,
    payload_names,
    specs_of,
)

MODEL = {
    "backbones.frame.conv1.weight": TensorSpec((4, 3), "float32"),
    "backbones.frame.bn1.num_batches_tracked": TensorSpec((), "int64"),
    "backbones.frame.bn1.running_mean": TensorSpec((4,), "float32"),
    "dead.output_bias": TensorSpec((7,), "float32"),
    "moe.experts.0.up.weight": TensorSpec((2, 2), "float32"),
    "moe.experts.1.up.weight": TensorSpec((2, 2), "float32"),
    "moe.experts.10.up.weight": TensorSpec((2, 2), "float32"),
    "moe.router.weight": TensorSpec((11, 2), "float16"),
    "projection.counter": TensorSpec((), "int64"),
    "projection.scale": TensorSpec((), "float64"),
}


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("moe.experts.0.up.weight", 0),
        ("moe.experts.10.up.weight", 10),
        ("moe.experts.1", None),
        ("moe.router.experts.1.weight", None),
        ("some.moe.experts.1.weight", None),
        ("moe.experts.one.weight", None),
    ],
)
def test_which_expert_a_tensor_belongs_to(name: str, expert: int | None) -> None:
    assert expert_of(name) == expert


def test_the_head_is_everything_after_the_backbones() -> None:
    assert {name for name in MODEL if not is_head(name)} == {name for name in MODEL if name.startswith("backbones.")}


@pytest.mark.parametrize("mode", ["head", "full"])
def test_the_payload_is_all_that_a_client_needs_and_nothing_dead(mode: TrainMode) -> None:
    expected = [name for name in sorted(MODEL) if not name.startswith("dead.") and (mode == "full" or is_head(name))]
    assert payload_names(MODEL, mode) == tuple(expected)
    assert payload_names(dict(reversed(MODEL.items())), mode) == tuple(expected)


def test_the_manifest_of_the_head() -> None:
    assert manifest(MODEL, "head", (10, 0)) == {
        "moe.experts.0.up.weight": TensorSpec((2, 2), "float32"),
        "moe.experts.10.up.weight": TensorSpec((2, 2), "float32"),
        "moe.router.weight": TensorSpec((11, 2), "float32"),
        "projection.scale": TensorSpec((), "float32"),
    }


def test_the_manifest_of_the_whole_model_has_running_statistics_but_no_counters() -> None:
    found = manifest(MODEL, "full", ())
    assert list(found) == sorted(found)
    assert found.keys() - manifest(MODEL, "head", ()).keys() == {
        "backbones.frame.conv1.weight",
        "backbones.frame.bn1.running_mean",
    }


def test_an_expert_that_the_model_does_not_have_adds_nothing() -> None:
    assert manifest(MODEL, "head", (5,)) == manifest(MODEL, "head", ())


def test_sizes_of_specs() -> None:
    assert [TensorSpec(shape, "float32").size for shape in ((), (0,), (3, 4))] == [1, 0, 12]
    assert specs_of({"b": np.zeros((2, 1), np.int8), "a": np.array(1.5)}) == {
        "a": TensorSpec((), "float64"),
        "b": TensorSpec((2, 1), "int8"),
    }


def test_an_update_is_trained_minus_base_and_zero_where_nothing_changed() -> None:
    base = {"a": np.array([1.0, 2.0], np.float32), "b": np.array(0.1, np.float32), "c": np.zeros(2, np.float32)}
    trained = {"a": np.array([1.5, 1.0], np.float32), "b": np.array(0.1, np.float32), "c": np.ones(2, np.float32)}
    update = make_update(base, trained, ("b", "a"))
    assert list(update) == ["a", "b"]
    np.testing.assert_array_equal(update["a"], [0.5, -1.0])
    assert update["b"].tobytes() == np.zeros((), np.float32).tobytes()
    assert {value.dtype for value in update.values()} == {np.dtype(np.float32)}
    assert update["b"].shape == ()


def test_a_nan_after_training_is_not_hidden() -> None:
    update = make_update({"a": np.zeros(1, np.float32)}, {"a": np.array([np.nan], np.float32)}, ["a"])
    assert np.isnan(update["a"]).all()


def test_norms_are_euclidean_by_block_and_independent_of_order() -> None:
    update = {"b": np.array([3, 0], np.float32), "a": np.array(4, np.float32), "c": np.array([[12]], np.float32)}
    update |= {"moe.experts.2.a": np.array([6], np.float32), "moe.experts.2.b": np.array([8], np.float32)}
    assert block_norms(update) == {None: 13.0, 2: 10.0} == block_norms(dict(reversed(update.items())))
    assert block_norms({}) == {None: 0.0}


def test_the_norm_of_the_largest_values_is_finite_and_that_of_tiny_ones_not_lost() -> None:
    assert math.isfinite(block_norms({"a": np.full(1000, 3e38, np.float32)})[None])
    assert block_norms({"a": np.full(4, 1e-30, np.float32)})[None] == pytest.approx(2e-30, rel=1e-6)
