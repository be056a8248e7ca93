"""The server's optimisers against the algorithms written out in float64, one value at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_fleet import toy_model

from mcoe_model.errors import SettingsError
from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.streams import stream
from mcoe_model.update import specs_of
from server.aggregation.optimiser import OptimiserSettings, step

NAME = "projection.weight"
DEAD = "moe.experts.3.weight"


def moved(base: Tensors, round_number: int, scale: float = 0.01) -> Tensors:
    """What a rule made of the base: every parameter moved except those of an expert that nobody used."""
    random = stream(round_number, "aggregated")
    found = {}
    for name, value in base.items():
        delta = scale * random.normal(size=value.shape)
        learned = np.issubdtype(value.dtype, np.floating) and name != DEAD
        found[name] = np.asarray(value + delta, value.dtype) if learned else value
    return found


def test_none_is_the_default_and_takes_what_was_aggregated() -> None:
    aggregated = moved(toy_model(), 1)
    tensors, moments = step(toy_model(), aggregated, {}, OptimiserSettings())
    assert tensors_sha256(tensors) == tensors_sha256(aggregated)
    assert moments == {}


def test_fedavgm_sums_deltas_that_fade(rounds: int = 5) -> None:
    settings = OptimiserSettings("fedavgm", learning_rate=0.5, momentum=0.8)
    current, moments = toy_model(), dict[str, Any]()
    expected, first = current[NAME].astype(np.float64), 0.0
    for number in range(rounds):
        aggregated = moved(current, number)
        first = 0.8 * first + (aggregated[NAME].astype(np.float64) - current[NAME])
        expected = expected + 0.5 * first
        current, moments = step(current, aggregated, moments, settings)
    np.testing.assert_allclose(current[NAME], expected, rtol=1e-5, atol=1e-6)


def test_fedadam_is_algorithm_2(rounds: int = 5) -> None:
    settings = OptimiserSettings("fedadam", learning_rate=0.1, momentum=0.9, second_momentum=0.99, adaptivity=1e-3)
    current, moments = toy_model(), dict[str, Any]()
    expected, first, second = current[NAME].astype(np.float64), 0.0, np.full(current[NAME].shape, 1e-3**2)
    for number in range(rounds):
        aggregated = moved(current, number)
        delta = aggregated[NAME].astype(np.float64) - current[NAME]
        first = 0.9 * first + 0.1 * delta
        second = 0.99 * second + 0.01 * delta**2
        expected = expected + 0.1 * first / (np.sqrt(second) + 1e-3)
        current, moments = step(current, aggregated, moments, settings)
    np.testing.assert_allclose(current[NAME], expected, rtol=1e-4, atol=1e-5)


def test_fedavgm_without_momentum_takes_what_was_aggregated() -> None:
    base = toy_model()
    aggregated = moved(base, 1)
    tensors, _ = step(base, aggregated, {}, OptimiserSettings("fedavgm", momentum=0.0))
    for name in base:
        np.testing.assert_allclose(tensors[name], aggregated[name], rtol=1e-6)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_dtypes_and_shapes_are_the_bases_and_moments_are_float32(name: Any) -> None:
    base: Tensors = toy_model()
    base["dead.weight"] = base["dead.weight"].astype(np.float64)
    base["moe.router.weight"] = base["moe.router.weight"].astype(np.float16)
    aggregated = moved(base, 1, scale=0.1)
    tensors, moments = step(base, aggregated, {}, OptimiserSettings(name))
    assert specs_of(tensors) == specs_of(base)
    assert {value.dtype for value in moments.values()} == {np.dtype(np.float32)}
    changed = {changed for changed in base if tensors[changed].tobytes() != base[changed].tobytes()}
    assert changed == {n for n in base if np.issubdtype(base[n].dtype, np.floating)} - {DEAD}


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_momentum_does_not_carry_on_an_expert_that_nobody_used(name: Any) -> None:
    settings = OptimiserSettings(name)
    base = toy_model()
    used = moved(base, 1)
    used[DEAD] = base[DEAD] + np.float32(0.1)
    current, moments = step(base, used, {}, settings)
    later, kept = step(current, moved(current, 2), moments, settings)
    assert later[DEAD].tobytes() == current[DEAD].tobytes()
    for moment in (moment for moment in moments if moment.endswith(DEAD)):
        np.testing.assert_array_equal(kept[moment], moments[moment])
    assert later[NAME].tobytes() != current[NAME].tobytes()


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_running_statistics_and_counters_are_taken_as_aggregated(name: Any) -> None:
    base: Tensors = toy_model() | {
        "bn.running_var": np.full(3, 1e-3, np.float32),
        "bn.running_mean": np.ones(3, np.float32),
    }
    aggregated: Tensors = moved(base, 1) | {
        "bn.running_var": np.full(3, 1e-4, np.float32),
        "bn.running_mean": np.zeros(3, np.float32),
        "backbones.frame.batches": np.array(9, np.int64),
    }
    tensors, moments = step(base, aggregated, {}, OptimiserSettings(name, learning_rate=1.0))
    for kept in ("bn.running_var", "bn.running_mean", "backbones.frame.batches"):
        assert tensors[kept].tobytes() == aggregated[kept].tobytes()
        assert not any(moment.endswith(kept) for moment in moments)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_a_step_changes_nothing_that_it_is_given_and_repeats_its_bits(name: Any) -> None:
    settings = OptimiserSettings(name)
    base = toy_model()
    current, moments = step(base, moved(base, 1), {}, settings)
    aggregated = moved(current, 2)
    before = [tensors_sha256(tensors) for tensors in (current, aggregated, moments)]
    first = step(current, aggregated, moments, settings)
    second = step(current, aggregated, moments, settings)
    assert [tensors_sha256(tensors) for tensors in (current, aggregated, moments)] == before
    assert [tensors_sha256(tensors) for tensors in first] == [tensors_sha256(tensors) for tensors in second]


def test_optimiser_settings_name_every_fault() -> None:
    with pytest.raises(SettingsError) as caught:
        OptimiserSettings(
            "adam",  # type: ignore[arg-type]
            learning_rate=float("nan"),
            momentum=1.0,
            second_momentum=-0.1,
            adaptivity=0.0,
        )
    assert len(caught.value.faults) == 5
    with pytest.raises(SettingsError, match="needs a server optimiser"):
        OptimiserSettings(learning_rate=0.5)
