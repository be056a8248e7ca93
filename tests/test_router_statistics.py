"""Counts and gate mass per expert, and what is wrong with statistics that lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import stream


def routed(clips: int, experts: int = 8, top_k: int = 2, seed: int = 0) -> tuple[Any, Any]:
    """Gate probabilities (n, E) and chosen experts (n, k)."""
    gate = stream(seed, clips, "gate").dirichlet(np.ones(experts), size=clips)
    return gate, np.argsort(gate, axis=1)[:, -top_k:]


def test_counting_three_clips_by_hand() -> None:
    gate = np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.75, 0.25, 0.0], [0.5, 0.5, 0.0, 0.0]])
    chosen = np.array([[0, 1], [1, 2], [1, 0]])
    found = RouterStatistics.count(gate, chosen)
    assert found == RouterStatistics(3, 2, (2, 3, 1, 0), (1.0, 1.5, 0.5, 0.0))
    assert found.load == (2 / 6, 3 / 6, 1 / 6, 0.0)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 5))
def test_what_is_counted_is_without_fault(clips: int, top_k: int, seed: int) -> None:
    gate, chosen = routed(clips, top_k=top_k, seed=seed)
    found = RouterStatistics.count(gate.astype(np.float32), chosen)
    assert sum(found.routed) == clips * top_k
    assert sum(found.gate_mass) == pytest.approx(clips, rel=1e-5)
    assert sum(found.load) == pytest.approx(1)
    assert found.faults(examples=clips, experts=8, top_k=top_k) == []


@given(st.integers(0, 20), st.integers(1, 20))
def test_adding_statistics_is_counting_both_sets(left: int, right: int) -> None:
    gate, chosen = routed(left + right)
    whole = RouterStatistics.count(gate, chosen)
    parts = RouterStatistics.count(gate[:left], chosen[:left]) + RouterStatistics.count(gate[left:], chosen[left:])
    assert (parts.examples, parts.routed) == (whole.examples, whole.routed)
    assert parts.gate_mass == pytest.approx(whole.gate_mass)
    assert whole + RouterStatistics.none(8, 2) == whole


def test_statistics_of_other_experts_or_another_top_k_cannot_be_added() -> None:
    for other in (RouterStatistics.none(7, 2), RouterStatistics.none(8, 1)):
        with pytest.raises(ValueError, match="cannot add"):
            RouterStatistics.none(8, 2) + other


def test_no_clips_have_no_load() -> None:
    assert RouterStatistics.none(4, 2).load == (0.0,) * 4


def test_a_record_gives_the_same_statistics_back() -> None:
    found = RouterStatistics.count(*routed(9))
    assert RouterStatistics.from_record(found.to_record()) == found
    assert RouterStatistics.from_record({**found.to_record(), "loss": 1.0}) == found


@pytest.mark.parametrize("missing", RouterStatistics.none(4, 2).to_record())
def test_an_incomplete_record_is_refused(missing: str) -> None:
    record = RouterStatistics.none(4, 2).to_record()
    del record[missing]
    with pytest.raises(ValueError, match="incomplete"):
        RouterStatistics.from_record(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("router-routed", 5),
        ("router-routed", "1234"),
        ("router-routed", [1.0, 2.0, 3.0, 4.0]),
        ("router-routed", [True, False, True, True]),
        ("router-examples", "2"),
        ("router-examples", 2.0),
        ("router-examples", 2**63),
        ("router-top-k", None),
        ("router-gate-mass", ["1.0"] * 4),
        ("router-gate-mass", [None] * 4),
        ("router-gate-mass", [10**400] * 4),
        ("router-gate-mass", 1.0),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="router statistics"):
        RouterStatistics.from_record({**RouterStatistics.none(4, 2).to_record(), name: value})


def test_whole_gate_masses_are_numbers_too() -> None:
    """A client may have summed to exactly 3 and sent it as a whole number."""
    record = {**RouterStatistics.none(2, 1).to_record(), "router-gate-mass": [3, 0.5]}
    assert RouterStatistics.from_record(record).gate_mass == (3.0, 0.5)


def test_small_rounding_of_the_gate_is_no_fault_and_more_is() -> None:
    for mass, fit in ((3.0, True), (3.002, True), (2.998, True), (3.004, False), (2.996, False)):
        statistics = RouterStatistics(3, 1, (3, 0), (mass, 0.0))
        assert (statistics.faults(examples=3, experts=2, top_k=1) == []) == fit
