"""Messages survive the journey, and whoever reads one believes nothing in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.health import MOST, UNKNOWN, Health
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import PROTOCOL_VERSION
from mcoe_model.protocol import (
    MAX_EXAMPLES,
    REFUSALS,
    CheckIn,
    EvaluateReport,
    EvaluateTask,
    Offer,
    ProtocolError,
    TrainReport,
    TrainTask,
    UpdateMeta,
    owns_update,
    update_id,
)
from mcoe_model.router_statistics import RouterStatistics

CHECK_IN = CheckIn("client-1", 12)
TASK = TrainTask(3, "b" * 64, "c" * 64, "d" * 16, "head", FineTuneSettings(epochs=2, schedule="cosine"), 7, (0.5, 0.5))
META = UpdateMeta("0123456789abcdef" * 2, "client-1", 3, "b" * 64, "d" * 16, "full", (0, 3, 7))
REPORT = TrainReport(4, 1.5, 1.25, 0.5, RouterStatistics(4, 2, (4, 3, 1, 0), (1.0, 1.5, 1.5, 0.0)))
RUNNING = CheckIn("client-1", 12, runs="a" * 64, refused="b" * 64, refusal="worse")
OFFER = Offer("a" * 64, canary=True)
EVALUATE = EvaluateTask("a" * 64, "b" * 64, "c" * 64, "d" * 16, "head")
EVALUATED = EvaluateReport("client-1", "a" * 64, 12, 9, 8)
HEALTH = Health("0.2", 12, 80, 41, 0, 1, 1, 125, 30, 4, 2, 20_000, 0)
MESSAGES = (CHECK_IN, RUNNING, TASK, META, REPORT, OFFER, EVALUATE, EVALUATED, HEALTH)

PLAIN = (bool, int, float, str)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_journey_as_plain_values(message: Any) -> None:
    record = message.to_record()
    for value in record.values():
        assert type(value) in PLAIN or (type(value) is list and {type(item) for item in value} <= {int, float})
    assert type(message).from_record(record) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_field_is_needed_and_no_other_is_taken(message: Any) -> None:
    record = message.to_record()
    for name in record:
        with pytest.raises(ProtocolError):
            type(message).from_record({key: value for key, value in record.items() if key != name})
    with pytest.raises(ProtocolError, match="unknown"):
        type(message).from_record({**record, "spare": 1})


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_no_field_takes_a_value_of_another_type(message: Any) -> None:
    for name, value in message.to_record().items():
        for wrong in (None, b"bytes", {"a": 1}, [["nested"]], object(), 10**400):
            with pytest.raises(ProtocolError):
                type(message).from_record({**message.to_record(), name: wrong})
        if not isinstance(value, bool):
            with pytest.raises(ProtocolError):
                type(message).from_record({**message.to_record(), name: True})


def test_a_whole_number_may_stand_for_a_float_but_not_the_other_way() -> None:
    """Languages that have one number type send 1.0 as 1."""
    assert TrainReport.from_record({**REPORT.to_record(), "seconds": 1}).seconds == 1.0
    with pytest.raises(ProtocolError):
        TrainReport.from_record({**REPORT.to_record(), "examples": 4.0})


@pytest.mark.parametrize("message", [CHECK_IN, TASK, META, EVALUATE, EVALUATED], ids=lambda one: type(one).__name__)
def test_another_protocol_is_refused_on_both_sides(message: Any) -> None:
    for version in (PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1):
        with pytest.raises(ProtocolError, match=f"speaks protocol {version}"):
            type(message).from_record(replace(message, protocol_version=version).to_record())


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": ""},
        {"client_id": "x" * 65},
        {"client_id": "a\nb"},
        {"client_id": "a\0b"},
        {"client_version": ""},
        {"client_version": "1" * 65},
        {"client_version": "\x1b[31m"},
        {"examples": -1},
        {"examples": MAX_EXAMPLES + 1},
        {"runs": "a" * 63},
        {"runs": "G" * 64},
        {"refused": "b" * 64},
        {"refusal": "worse"},
        {"refused": "b" * 64, "refusal": "ugly"},
        {"refused": "../" + "b" * 61, "refusal": "worse"},
    ],
)
def test_a_check_in_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        CheckIn.from_record(replace(CHECK_IN, **change).to_record())


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refusal_has_one_of_the_known_reasons(why: str) -> None:
    assert CheckIn.from_record({**RUNNING.to_record(), "refusal": why}).refusal == why


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "a" * 65])
def test_an_offer_names_a_model(sha256: str) -> None:
    with pytest.raises(ProtocolError):
        Offer.from_record(replace(OFFER, sha256=sha256).to_record())


@pytest.mark.parametrize(
    "change",
    [
        {"examples": 0},
        {"examples": MAX_EXAMPLES + 1},
        {"correct": -1},
        {"correct": 13},
        {"parent_correct": -1},
        {"parent_correct": 13},
    ],
)
def test_counts_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        EvaluateReport.from_record(replace(EVALUATED, **change).to_record())


def test_an_evaluate_task_names_a_train_mode() -> None:
    with pytest.raises(ProtocolError, match="train mode"):
        EvaluateTask.from_record({**EVALUATE.to_record(), "train_mode": "all"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fine_tune.epochs", 0),
        ("fine_tune.epochs", 10**6),
        ("fine_tune.batch_size", -1),
        ("fine_tune.learning_rate", float("nan")),
        ("fine_tune.learning_rate", 2.0),
        ("fine_tune.schedule", "never"),
        ("train_mode", "all"),
    ],
)
def test_a_task_that_asks_for_the_absurd_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        TrainTask.from_record({**TASK.to_record(), name: value})


def test_all_wrong_training_settings_of_a_task_are_named() -> None:
    record = {**TASK.to_record(), "fine_tune.epochs": 0, "fine_tune.batch_size": 0}
    with pytest.raises(ProtocolError, match=r"epochs must be .*; batch size must be"):
        TrainTask.from_record(record)


def test_an_update_id_depends_on_client_base_and_set_of_clips_alone() -> None:
    usual = update_id("client", "base", ["b", "a"])
    assert usual == update_id("client", "base", iter(("a", "b")))
    assert len(usual) == 32 and set(usual) <= set("0123456789abcdef")
    others = [("other", "base", "ab"), ("client", "else", "ab"), ("client", "base", "a"), ("client", "base", ["ab"])]
    assert len({usual, *(update_id(*other) for other in others)}) == 5
    UpdateMeta.from_record(replace(META, update_id=usual).to_record())


def test_no_client_can_take_the_update_id_of_another() -> None:
    for other in ("base", "else"):
        assert owns_update("client", update_id("client", other, "ab"))
        assert not owns_update("clien", update_id("client", other, "ab"))
    assert update_id("client", "base", "ab") != update_id("client", "else", "ab")


@pytest.mark.parametrize(("name", "most"), MOST.items())
def test_a_number_of_a_health_is_unknown_or_within_its_bounds(name: str, most: int) -> None:
    for value in (UNKNOWN, 0, most):
        assert getattr(Health.from_record(HEALTH.to_record() | {name: value}), name) == value
    for value in (UNKNOWN - 1, most + 1):
        with pytest.raises(ProtocolError, match=name):
            Health.from_record(HEALTH.to_record() | {name: value})


@pytest.mark.parametrize("version", ["", "happy", "1 sad", "1" * 33, "1.0\n"])
def test_no_text_passes_for_a_version(version: str) -> None:
    with pytest.raises(ProtocolError, match="version"):
        Health.from_record(HEALTH.to_record() | {"version": version})


def test_a_health_says_a_version_and_numbers_and_nothing_else() -> None:
    assert {name for name, value in HEALTH.to_record().items() if type(value) is not int} == {"version"}
    assert {"version", *MOST} == set(HEALTH.to_record())


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.data())
def test_reading_gives_a_protocol_error_or_a_message_that_says_the_same_again(message: Any, data: Any) -> None:
    record: Mapping[str, Any] = message.to_record()
    names = st.one_of(st.sampled_from(sorted(record)), st.text(max_size=6))
    changed = {**record, **data.draw(st.dictionaries(names, anything, max_size=2))}
    for name in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=1)):
        changed.pop(name)
    try:
        read = type(message).from_record(changed)
    except ProtocolError as fault:
        assert str(fault)
    else:
        again = read.to_record()
        assert again.keys() == changed.keys()
        assert all(again[name] == changed[name] or changed[name] != changed[name] for name in again)
