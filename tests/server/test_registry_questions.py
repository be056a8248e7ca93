"""The registry's contract on every database: versions of the model, and what can be asked of rounds."""

from __future__ import annotations

import datetime

import pytest
import sqlalchemy as sa
from registry_rounds import FIRST, opened, published
from toy_fleet import statistics

from mcoe_model.errors import DataMissing
from server.registry import Registry
from server.registry.tables import Base


def test_the_newest_model_is_the_newest_released_one(registry: Registry) -> None:
    row = opened(registry, "a")
    registry.publish_round(row.id, "1" * 64, "generation", "candidate")
    assert (registry.newest_model(), registry.last_published()) == (FIRST, 1)
    registry.set_model_state("1" * 64, "canary")
    assert registry.newest_model() == FIRST
    registry.set_model_state("1" * 64, "released")
    assert registry.newest_model() == "1" * 64
    registry.set_model_state("1" * 64, "held")
    assert registry.newest_model() == FIRST
    assert published(registry, "2" * 64, "a").number == 2
    assert [(model.version, model.sha256[0], model.state) for model in registry.models()] == [
        (1, "0", "released"),
        (2, "1", "held"),
        (3, "2", "released"),
    ]
    assert registry.model(3).parent_sha256 == FIRST


def test_a_rollback_is_a_new_version_with_old_bytes(registry: Registry) -> None:
    published(registry, "1" * 64, "a")
    published(registry, "2" * 64, "b")
    assert registry.release_again(2) == 4
    assert registry.newest_model() == "1" * 64
    assert registry.model("1" * 64) == registry.model(4)
    assert registry.model(4).parent_sha256 == registry.model(2).parent_sha256 == FIRST
    assert registry.shaped_by("1" * 64) == {"a": (1,)}
    registry.set_model_state("1" * 64, "held")
    assert [registry.model(version).state for version in (2, 4)] == ["held", "held"]
    assert registry.newest_model() == "2" * 64
    for unknown in (9, "9" * 64):
        with pytest.raises(DataMissing, match="no model"):
            registry.model(unknown)
    with pytest.raises(DataMissing):
        registry.release_again(9)
    with pytest.raises(DataMissing):
        registry.set_model_state("9" * 64, "held")


def test_a_model_is_imported_as_a_new_version_without_parents(registry: Registry) -> None:
    assert registry.import_model(FIRST, "generation") == 1
    published(registry, "1" * 64, "a")
    assert registry.import_model("5" * 64, "generation") == 3
    assert registry.newest_model() == "5" * 64
    assert registry.shaped_by("5" * 64) == {}
    assert registry.import_model("6" * 64, "generation", "candidate") == 4
    assert registry.newest_model() == "5" * 64


def test_which_clients_shaped_a_model(registry: Registry) -> None:
    published(registry, "1" * 64, "ab", rejected="d")
    abandoned = opened(registry, "cd")
    registry.abandon_round(abandoned.id, "test")
    published(registry, "2" * 64, "bc")
    registry.release_again(1)
    published(registry, "3" * 64, "d")  # from version 1's bytes: rounds 1 and 2 are not behind it
    assert registry.shaped_by(FIRST) == {}
    assert registry.shaped_by("1" * 64) == {"a": (1,), "b": (1,)}
    assert registry.shaped_by("2" * 64) == {"a": (1,), "b": (1, 2), "c": (2,)}
    assert registry.shaped_by("3" * 64) == {"d": (3,)}


def test_which_experts_a_client_used_over_time(registry: Registry) -> None:
    published(registry, "1" * 64, "ab")
    registry.abandon_round(opened(registry, "a").id, "test")
    published(registry, "2" * 64, "b")
    published(registry, "3" * 64, "a")
    assert registry.expert_use("a") == {1: statistics("a", 10), 3: statistics("a", 10)}
    assert registry.expert_use("nobody") == {}


def test_why_a_reply_was_rejected(registry: Registry) -> None:
    registry.abandon_round(opened(registry, "a", rejected="b").id, "test")
    published(registry, "1" * 64, "a", rejected="b")
    assert [(found.attempt, found.reason) for found in registry.why_rejected("b", 1)] == [(1, "no b"), (2, "no b")]
    assert registry.why_rejected("a", 1) == registry.why_rejected("b", 2) == []


def test_what_a_round_cost(registry: Registry) -> None:
    registry.abandon_round(opened(registry, "a").id, "test")
    row = opened(registry, "ab", rejected="c")
    cost = registry.round_cost(1)
    assert (cost.attempts, cost.bytes_down, cost.bytes_up) == (2, 400, 20 + 47)
    assert cost.publish_seconds is None
    registry.close_round(row.id)
    registry.publish_round(row.id, "1" * 64, "generation")
    times = {"opened": 0, "closed": 90, "published": 92.5}
    start = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    with registry.engine.begin() as connection:
        for column, second in times.items():
            time = start + datetime.timedelta(seconds=second)
            connection.execute(sa.update(Base.metadata.tables["rounds"]).values({column: time}))
    cost = registry.round_cost(1)
    assert (cost.open_seconds, cost.publish_seconds) == (180.0, 2.5)
    with pytest.raises(DataMissing):
        registry.round_cost(2)
