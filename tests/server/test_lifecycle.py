"""What is decided about a new model: pure functions, and the settings that they follow."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcoe_model.errors import SettingsError
from mcoe_model.protocol import MAX_EXAMPLES, EvaluateReport
from server.lifecycle import (
    CanaryClient,
    Failed,
    Passed,
    ReleasePolicy,
    Undecided,
    canary_clients,
    judge_canary,
    judge_reports,
    whom_to_ask,
)

POLICY = ReleasePolicy(evaluation_clients=3)
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(hours=1)
SHA = "a" * 64
FLEET = tuple(f"w{index:03}" for index in range(100))


def report(examples: int, correct: int, parent: int) -> EvaluateReport:
    return EvaluateReport("w", SHA, examples, correct, parent)


def test_fewer_reports_than_needed_decide_nothing() -> None:
    found = judge_reports([report(10, 0, 10)] * 2, POLICY)
    assert isinstance(found, Undecided) and found.reason.startswith("2 of 3 clients")


@pytest.mark.parametrize(("correct", "kind"), [(50, Passed), (40, Passed), (39, Passed), (38, Failed), (0, Failed)])
def test_a_candidate_may_be_worse_than_its_parent_by_the_margin(correct: int, kind: type) -> None:
    assert isinstance(judge_reports([report(50, correct, 40)] * 3, POLICY), kind)


@given(st.integers(1, MAX_EXAMPLES), st.data())
def test_one_liar_never_decides(examples: int, data: st.DataObject) -> None:
    """Whatever one of three says: good stays good and bad stays bad."""
    said = [data.draw(st.integers(0, examples)) for _ in range(2)]
    lie = report(examples, *said)
    good, bad = [report(20, 20, 18), report(10, 9, 9)], [report(20, 5, 18), report(10, 2, 9)]
    assert isinstance(judge_reports([*good, lie], POLICY), Passed)
    assert isinstance(judge_reports([lie, *bad], POLICY), Failed)


def test_the_canary_is_a_fixed_share_drawn_for_each_model() -> None:
    drawn = canary_clients(FLEET, SHA, 0.1)
    assert len(drawn) == 10 and list(drawn) == sorted(drawn)
    assert drawn == canary_clients(FLEET[::-1], SHA, 0.1)
    assert drawn != canary_clients(FLEET, "b" * 64, 0.1)
    assert set(drawn) < set(canary_clients(FLEET, SHA, 0.2))
    assert len(canary_clients(FLEET[:3], SHA, 0.01)) == 1
    assert canary_clients(FLEET, SHA, 1.0) == FLEET
    assert canary_clients(FLEET, SHA, 0.07) and len(canary_clients(FLEET, SHA, 0.07)) == 7
    assert canary_clients((), SHA, 0.5) == ()


def test_every_client_is_a_canary_some_time() -> None:
    drawn = {client for model in range(100) for client in canary_clients(FLEET, f"{model:064}", 0.1)}
    assert drawn == set(FLEET)


def test_a_canary_passes_after_enough_check_ins_of_whichever_client() -> None:
    heard = [CanaryClient("a", 2), CanaryClient("b", 0)]
    waits = judge_canary(heard, 3, LATER, NOW)
    assert waits == Undecided("2 of 3 check-ins, 1 of 2 clients run it", ("b",))
    assert isinstance(judge_canary([replace(heard[0], check_ins=3), heard[1]], 3, LATER, NOW), Passed)
    assert isinstance(judge_canary([CanaryClient("a", 2), CanaryClient("b", 1)], 3, NOW, LATER), Passed)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(CanaryClient("b", 0, "worse"), "refused it: worse"), (CanaryClient("b", 1, None, True), "gone back")],
)
def test_a_refusal_or_a_client_that_goes_back_stops_it_whatever_the_others_say(bad: CanaryClient, reason: str) -> None:
    found = judge_canary([CanaryClient("a", 100), bad], 3, LATER, NOW)
    assert isinstance(found, Failed) and reason in found.reason


def test_a_canary_whose_time_is_over_is_held() -> None:
    found = judge_canary([CanaryClient("a", 2)], 3, NOW, NOW)
    assert isinstance(found, Failed) and "only 2 of 3 check-ins" in found.reason


def test_clients_that_the_model_did_not_learn_from_are_asked_first() -> None:
    present = {client: index < 50 for index, client in enumerate(FLEET)}
    order = whom_to_ask(present, SHA)
    assert set(order[:50]) == set(FLEET[50:]) and sorted(order) == list(FLEET)
    assert order == whom_to_ask(dict(reversed(present.items())), SHA) != whom_to_ask(present, "b" * 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", -0.1),
        ("margin", math.nan),
        ("evaluation_clients", -1),
        ("evaluation_clients", 1),
        ("evaluation_clients", 2),
        ("canary_share", -0.1),
        ("canary_share", 1.1),
        ("canary_share", math.nan),
        ("canary_check_ins", 0),
        ("canary_hours", 0.0),
        ("canary_hours", math.inf),
        ("release", "later"),
    ],
)
def test_a_policy_out_of_bounds_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        replace(POLICY, **{name: value})  # type: ignore[arg-type]
    [fault] = caught.value.faults
    assert name in fault


def test_every_fault_of_a_policy_is_told() -> None:
    with pytest.raises(SettingsError) as caught:
        ReleasePolicy(-1.0, 2, 2.0, 0, 0.0, "x")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 6
