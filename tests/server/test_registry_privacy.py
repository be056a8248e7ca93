"""The registry's contract on every database: retention, coarse statistics, privacy spent, and being forgotten."""

from __future__ import annotations

import datetime

import pytest
import sqlalchemy as sa
from registry_rounds import FIRST, HOUR, accepted, opened, published
from toy_fleet import EXPERTS, TOP_K, statistics

from mcoe_model.consent import Consent
from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, EvaluateReport
from mcoe_model.router_statistics import RouterStatistics
from server.registry import Registry, utc_now
from server.registry.coarse import coarsen
from server.registry.tables import Base


def test_what_is_older_than_the_retention_time_is_pruned_and_rounds_stay(registry: Registry) -> None:
    published(registry, "1" * 64, "ab")
    unfinished = opened(registry, "a")
    other = Registry(registry.engine, "other")
    other.saw(CheckIn("z", 1))
    assert registry.prune(utc_now() + datetime.timedelta(days=89)).router_statistics == 0
    pruned = registry.prune(utc_now() + datetime.timedelta(days=91))
    assert (pruned.router_statistics, pruned.check_ins) == (2 * EXPERTS, 3)
    assert registry.router_statistics(1) == registry.expert_use("a") == {}
    assert len(registry.contributions(unfinished.id)) == 1, "a round that is not finished keeps what it needs"
    assert (len(registry.rounds()), registry.client("a").accepted) == (2, 2)
    assert other.prune(utc_now() + datetime.timedelta(days=91)).check_ins == 1


def test_a_coarse_registry_keeps_bins_once_a_round_is_over(registry: Registry) -> None:
    coarse = Registry(registry.engine, "contract", coarse=True)
    for end in ("publish", "abandon"):
        row = opened(coarse, "ab")
        exact = {client: statistics(client, 10) for client in "ab"}
        coarse.close_round(row.id)
        assert {found.client_id: found.router for found in coarse.contributions(row.id)} == exact
        if end == "publish":
            coarse.publish_round(row.id, "1" * 64, "generation")
        else:
            coarse.abandon_round(row.id, "test")
        kept = coarse.router_statistics(row.id)
        assert kept == {client: coarsen(found) for client, found in exact.items()}
        assert kept != exact


def test_the_four_bins() -> None:
    exact = RouterStatistics(100, TOP_K, (0, 49, 51, 100), (1.0, 24.9, 25.0, 49.1))
    assert coarsen(exact) == RouterStatistics(100, TOP_K, (12, 38, 75, 150), (6.25, 18.75, 37.5, 37.5))
    assert coarsen(RouterStatistics(4, 1, (4,), (4.0,))) == RouterStatistics(4, 1, (4,), (4.0,))
    assert coarsen(RouterStatistics.none(2, 1)) == RouterStatistics.none(2, 1)


def test_the_privacy_that_a_client_has_spent(registry: Registry) -> None:
    first, second = published(registry, "1" * 64, "ab"), published(registry, "2" * 64, "a")
    registry.record_budget(first.id, {"a": 0.5, "b": 0.5}, 1e-5)
    registry.record_budget(second.id, {"a": 9.0}, 1e-5)
    registry.record_budget(second.id, {"a": 0.75}, 1e-5)
    spent = registry.spent("a")
    assert (spent.rounds, spent.epsilon, spent.delta) == (2, 0.75, 1e-5)
    assert registry.spent("b").epsilon == 0.5
    assert registry.spent("nobody").rounds == 0


def test_who_was_forgotten_meanwhile_is_in_no_cohort_and_has_no_budget(registry: Registry) -> None:
    row = opened(registry, "ab")
    registry.forget("a")
    registry.record_budget(row.id, {"a": 0.5, "b": 0.5}, 1e-5)
    assert (registry.spent("a").rounds, registry.spent("b").rounds) == (0, 1)
    registry.abandon_round(row.id, "test")
    registry.saw(CheckIn("c", 1))
    registry.revoke("c")
    assert registry.open_round(FIRST, ["a", "b", "c"], {}, None).cohort == ("b",)


def rows_naming(registry: Registry, client: str) -> dict[str, int]:
    """In how many rows of each table any text column is this client's id."""
    found = {}
    with registry.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            rows = connection.execute(sa.select(table)).all()
            found[table.name] = sum(client in row for row in rows)
    return {name: count for name, count in found.items() if count}


def test_forgetting_a_client_leaves_no_row_that_names_it(registry: Registry) -> None:
    registry.invite("a", "token", utc_now() + HOUR)
    registry.enrol("token", "PEM", 1, [Consent("updates", "2", utc_now())])
    registry.rename("a", "anna")
    first = published(registry, "1" * 64, "ab")
    published(registry, "2" * 64, "b")
    registry.record_budget(first.id, {"a": 0.5}, 1e-5)
    registry.set_model_state("2" * 64, "candidate")
    registry.record_report(3, EvaluateReport("a", "2" * 64, 10, 7, 6))
    registry.begin_canary(3, "ab", 0.5, 3, utc_now() + HOUR)
    registry.saw(CheckIn("a", 10, refused="2" * 64, refusal="worse"))
    registry.note_health("a", Health(free_gb=7))
    registry.note_health("b", Health(free_gb=8))
    before = rows_naming(registry, "a")
    assert before.pop("audit_events") == 3
    unrelated = rows_naming(registry, "b")
    receipt = registry.forget("a", "keep")
    assert receipt.deleted == before == {
        "clients": 1, "check_ins": 2, "members": 1, "replies": 1, "router_statistics": EXPERTS, "privacy_budget": 1,
        "canary_clients": 1, "client_evaluations": 1, "consents": 1, "health": 1,
    }
    assert [model.version for model in receipt.descendants] == [2, 3]
    assert receipt.pending == ()
    assert rows_naming(registry, "a") == rows_naming(registry, "anna") == rows_naming(registry, "PEM") == {}
    assert rows_naming(registry, "b") == unrelated
    assert [(event.kind, event.client_id) for event in registry.events(10)] == [
        ("client forgotten", None),
        ("canary refused", None),
        ("model canary", None),
        ("model candidate", None),
        ("client enrolled", None),
        ("client invited", None),
    ]
    again = registry.forget("a")
    assert (sum(again.deleted.values()), again.descendants) == (0, ())


@pytest.mark.parametrize("closed", [False, True])
def test_forgetting_names_the_update_that_waits_in_an_unpublished_round(registry: Registry, closed: bool) -> None:
    row = opened(registry, "ab")
    if closed:
        registry.close_round(row.id)
    receipt = registry.forget("a")
    assert receipt.descendants == ()
    (pending,) = receipt.pending
    assert (pending.round_id, pending.number, pending.attempt, pending.closed) == (row.id, 1, 1, closed)
    assert pending.update_id == accepted("a").meta.update_id
    assert [found.client_id for found in registry.contributions(row.id)] == ["b"]
    left = registry.unfinished_round()
    assert left and left.cohort == ("b",)


def test_forgetting_lists_models_that_went_another_way(registry: Registry) -> None:
    published(registry, "1" * 64, "a")
    registry.release_again(1)
    published(registry, "2" * 64, "b")  # from version 1: a is not in it
    assert registry.release_again(2) == 5
    published(registry, "3" * 64, "b")
    assert [(model.version, model.sha256[0]) for model in registry.forget("a", "keep").descendants] == [
        (2, "1"),
        (5, "1"),
        (6, "3"),
    ]
