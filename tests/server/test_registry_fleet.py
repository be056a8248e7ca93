"""The registry's contract on every database: clients, models, the four questions, retention, and being forgotten."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from registry_databases import DATABASES, fresh_database
from toy_fleet import EXPERTS, TOP_K, expectation, honest_reply, statistics

from mcoe_model.consent import Consent
from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, EvaluateReport, News
from mcoe_model.router_statistics import RouterStatistics
from server.acceptance import Accepted, Rejected, judge
from server.registry import Registry, RoundRow, Transfer, utc_now
from server.registry.coarse import coarsen
from server.registry.database import open_database
from server.registry.tables import Base

HOUR = datetime.timedelta(hours=1)
FIRST = "0" * 64


@pytest.fixture(params=DATABASES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with fresh_database(request.param, tmp_path) as url:
        made = Registry(open_database(url), "contract")
        yield made
        made.engine.dispose()


def accepted(client: str) -> Accepted:
    expected = expectation(cohort=frozenset("abcd"))
    verdict = judge(honest_reply(expected, client), expected)
    assert isinstance(verdict, Accepted)
    return replace(verdict, meta=replace(verdict.meta, update_id=f"{ord(client):032x}"))


def opened(registry: Registry, clients: str, rejected: str = "") -> RoundRow:
    """A round with replies of these clients, from the newest model."""
    registry.add_first_model(FIRST, "generation")
    for client in {*clients, *rejected}:
        registry.saw(CheckIn(client, 10))
    base = registry.newest_model()
    assert base
    row = registry.open_round(base, sorted({*clients, *rejected}), {}, None)
    for client in clients:
        registry.record_reply(row.id, client, accepted(client), Transfer(100, 20))
    for client in rejected:
        registry.record_reply(row.id, client, Rejected(f"no {client}"), Transfer(100, 7))
    return row


def published(registry: Registry, sha256: str, clients: str, rejected: str = "") -> RoundRow:
    row = opened(registry, clients, rejected)
    registry.close_round(row.id)
    registry.publish_round(row.id, sha256, "generation")
    return row


# -- enrolment ------------------------------------------------------------------------------------------------


def test_an_invitation_is_good_for_one_enrolment(registry: Registry) -> None:
    registry.invite("a", "token", utc_now() + HOUR)
    assert (registry.client("a").state, registry.client("a").last_seen) == ("invited", None)
    assert registry.client_of_node(2**64 - 1) is None
    assert registry.enrol("token", "PEM", 2**64 - 1) == "a"
    found = registry.client("a")
    assert (found.state, found.public_key, found.node_id, found.token_expires) == ("enrolled", "PEM", 2**64 - 1, None)
    assert registry.client_of_node(2**64 - 1) == "a"
    with pytest.raises(EnrolmentRefused, match="used before"):
        registry.enrol("token", "other PEM", 7)
    with pytest.raises(EnrolmentRefused, match="is enrolled"):
        registry.invite("a", "again", utc_now() + HOUR)


def test_an_expired_or_unknown_token_enrols_nobody(registry: Registry) -> None:
    registry.invite("a", "token", utc_now() - HOUR)
    with pytest.raises(EnrolmentRefused, match="expired"):
        registry.enrol("token", "PEM", 1)
    with pytest.raises(EnrolmentRefused, match="unknown"):
        registry.enrol("guess", "PEM", 1)
    registry.invite("a", "newer", utc_now() + HOUR)
    with pytest.raises(EnrolmentRefused, match="unknown"):
        registry.enrol("token", "PEM", 1)
    assert registry.enrol("newer", "PEM", 1) == "a"


@pytest.mark.parametrize(("key", "node"), [("PEM", 2), ("other PEM", 1)])
def test_a_key_or_node_that_is_enrolled_already_is_refused_and_the_token_stays(
    registry: Registry, key: str, node: int
) -> None:
    registry.add_client("a", "PEM", 1)
    registry.revoke("a")  # a revoked key does not come back under another name
    registry.invite("b", "token", utc_now() + HOUR)
    with pytest.raises(EnrolmentRefused, match="enrolled already"):
        registry.enrol("token", key, node)
    with pytest.raises(EnrolmentRefused, match="enrolled already"):
        registry.add_client("c", key, node)
    assert [row.id for row in registry.clients()] == ["a", "b"]
    assert registry.enrol("token", "fresh PEM", 3) == "b"


def test_a_lost_key_stays_lost_whatever_becomes_of_its_client(registry: Registry) -> None:
    registry.add_client("a", "PEM", 1)
    registry.invite("b", "not used", utc_now() + HOUR)
    registry.revoke("b", lost=True)  # it has no key yet
    registry.revoke("a", lost=True)
    other = Registry(registry.engine, "other")

    def lost() -> list[str | None]:
        with pytest.raises(EnrolmentRefused, match="reported lost"):
            other.add_client("c", "PEM", 1)
        return [registry.ended("PEM"), other.ended("PEM"), registry.ended("new PEM")]

    assert lost() == ["lost", "lost", None]
    registry.invite("a", "token", utc_now() + HOUR)
    assert lost() == ["lost", "lost", None]
    with pytest.raises(EnrolmentRefused, match="reported lost"):
        registry.enrol("token", "PEM", 1)
    assert registry.enrol("token", "new PEM", 2) == "a"
    assert lost() == ["lost", "lost", None]
    registry.revoke("a")
    assert lost() == ["lost", "lost", "revoked"]
    registry.revoke("a", lost=True)
    assert lost() == ["lost", "lost", "lost"]
    registry.forget("a")
    assert lost() == ["lost", "lost", "lost"]
    assert [row.id for row in registry.clients()] == ["b"] and other.clients() == []


def test_consents_are_kept_by_kind_and_version_until_they_are_withdrawn(registry: Registry) -> None:
    given = datetime.datetime(2026, 11, 21, 9, tzinfo=datetime.UTC)
    both = [Consent("updates", "2", given), Consent("learning", "2", given)]
    registry.invite("a", "token", utc_now() + HOUR)
    registry.enrol("token", "PEM", 1, both)
    registry.add_client("b", "other PEM", 2)
    kept = registry.client("a").consents
    assert [(one.kind, one.version, one.given, one.withdrawn) for one in kept] == [
        ("updates", "2", given, None), ("learning", "2", given, None)
    ]  # fmt: skip
    assert [row.consents for row in registry.clients()] == [kept, ()]
    registry.revoke("a")
    assert registry.client("a").consents == kept  # the operator's word ends no consent
    before = utc_now()
    registry.withdraw("a")
    ended = [one.withdrawn for one in registry.client("a").consents]
    assert all(time is not None and before <= time <= utc_now() for time in ended)
    registry.invite("a", "again", utc_now() + HOUR)
    registry.enrol("again", "PEM", 1, [Consent("updates", "3", given)])
    assert [(one.version, one.withdrawn) for one in registry.client("a").consents] == [
        ("2", ended[0]), ("2", ended[1]), ("3", None)
    ]  # fmt: skip


def test_one_token_shown_by_many_at_once_enrols_one(registry: Registry) -> None:
    registry.invite("a", "token", utc_now() + HOUR)

    def enrol(index: int) -> str | None:
        try:
            return registry.enrol("token", f"PEM {index}", index)
        except EnrolmentRefused:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(enrol, range(8)))
    assert sorted(won, key=str) == [None] * 7 + ["a"]
    assert registry.client("a").node_id == won.index("a")


def test_a_client_that_is_revoked_or_withdrew_is_no_node_of_ours_and_can_be_invited_again(registry: Registry) -> None:
    for end, state in ((registry.revoke, "revoked"), (registry.withdraw, "withdrawn")):
        client = f"client {state}"
        registry.add_client(client, f"PEM {state}", len(state))
        end(client)
        assert (registry.client(client).state, registry.client_of_node(len(state))) == (state, None)
        registry.invite(client, state, utc_now() + HOUR)
        assert registry.enrol(state, f"new PEM {state}", 100 + len(state)) == client
        assert registry.client_of_node(len(state)) is None


def test_a_client_keeps_its_name_for_the_operator_and_may_get_a_new_node(registry: Registry) -> None:
    registry.add_client("a", "PEM a", 1)
    registry.add_client("b", "PEM b", 2)
    registry.rename("a", "the blue one")
    registry.set_node("a", 2**63)
    assert (registry.client("a").alias, registry.client("a").node_id) == ("the blue one", 2**63)
    assert (registry.client_of_node(1), registry.client_of_node(2**63)) == (None, "a")
    with pytest.raises(EnrolmentRefused):
        registry.set_node("b", 2**63)
    for unknown in (registry.client, registry.revoke, registry.withdraw):
        with pytest.raises(DataMissing, match="no client nobody"):
            unknown("nobody")


def test_a_client_is_in_one_experiment(registry: Registry) -> None:
    other = Registry(registry.engine, "other")
    registry.invite("a", "token", utc_now() + HOUR)
    with pytest.raises(EnrolmentRefused, match="unknown"):
        other.enrol("token", "PEM", 1)
    registry.enrol("token", "PEM", 1)
    assert (other.client_of_node(1), other.clients()) == (None, [])
    for refused in (
        lambda: other.saw(CheckIn("a", 1)),
        lambda: other.invite("a", "token", utc_now() + HOUR),
        lambda: other.add_client("a", "PEM 2", 2),
    ):
        with pytest.raises(EnrolmentRefused):
            refused()
    with pytest.raises(DataMissing):
        other.revoke("a")
    assert registry.client_of_node(1) == "a"


@pytest.mark.parametrize("left", ["revoke", "withdraw", "forget"])
def test_a_member_that_has_left_does_not_come_back_with_a_check_in(registry: Registry, left: str) -> None:
    registry.add_client("a", "PEM", 1)
    assert registry.saw_member(CheckIn("a", 5))
    before = registry.client("a").last_seen
    getattr(registry, left)("a")
    assert not registry.saw_member(CheckIn("a", 6))
    kept = [(row.state != "enrolled", row.last_seen, row.examples) for row in registry.clients()]
    assert kept == ([] if left == "forget" else [(True, before, 5)])
    assert not Registry(registry.engine, "other").saw_member(CheckIn("a", 6))


def test_clients_are_listed_with_what_they_took_part_in(registry: Registry) -> None:
    published(registry, "1" * 64, "ab", rejected="c")
    opened(registry, "a")
    registry.saw(CheckIn("d", 0))
    counted = {row.id: (row.rounds, row.accepted, row.rejected) for row in registry.clients()}
    assert counted == {"a": (2, 2, 0), "b": (1, 1, 0), "c": (1, 0, 1), "d": (0, 0, 0)}
    assert registry.client("c") == registry.clients()[2]


def test_what_was_done_to_clients_can_be_read_newest_first(registry: Registry) -> None:
    registry.add_client("a", "PEM", 1)
    registry.revoke("a")
    registry.audit("started", None, "version 1")
    Registry(registry.engine, "other").audit("started", None, "version 2")
    assert [(event.kind, event.client_id, event.detail) for event in registry.events(2)] == [
        ("started", None, "version 1"),
        ("client revoked", "a", ""),
    ]
    assert registry.events(10)[-1].kind == "client enrolled"
    assert [event.kind for event in registry.events(10, client_id="a", kind="enrol")] == ["client enrolled"]
    assert [event.kind for event in registry.events(1, client_id="a")] == ["client revoked"]
    assert registry.events(10, kind="%") == registry.events(10, client_id="b") == []


# -- models ---------------------------------------------------------------------------------------------------


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


# -- the four questions ---------------------------------------------------------------------------------------


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


# -- privacy --------------------------------------------------------------------------------------------------


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


def test_a_check_in_says_what_the_program_is_and_what_it_was_told(registry: Registry) -> None:
    registry.saw(CheckIn("a", 5, preset="mcoe-tiny", capabilities=("train-head", "evaluate")), News(standing="ok"))
    found = registry.client("a")
    assert (found.preset, found.capabilities) == ("mcoe-tiny", ("train-head", "evaluate"))
    assert (found.standing, found.next_check_in) == ("ok", None)
    registry.saw(CheckIn("a", 5), News(standing="too-old", next_check_in_s=600.0))
    found = registry.client("a")
    assert found.last_seen and found.standing == "too-old"
    assert found.next_check_in == found.last_seen + datetime.timedelta(seconds=600)


def test_a_client_that_speaks_another_protocol_does_not_vanish(registry: Registry) -> None:
    registry.add_client("a", "KEY", 11)
    registry.saw_other_protocol("a", 10**40)
    found = registry.client("a")
    assert found.last_seen and found.standing == "protocol 1" + "0" * 22
    registry.saw(CheckIn("a", 5), News(standing="ok"))
    assert registry.client("a").standing == "ok"
    registry.saw_other_protocol("nobody", 2)
    assert [row.id for row in registry.clients()] == ["a"]


def test_who_sleeps_counts_while_it_was_heard_lately_and_can_learn(registry: Registry) -> None:
    begin = utc_now()
    for client, examples, standing in (("a", 5, "ok"), ("b", 0, "ok"), ("c", 5, "too-old"), ("d", 5, "update-advised")):
        registry.saw(CheckIn(client, examples), News(standing=standing))  # type: ignore[arg-type]
    registry.saw(CheckIn("e", 5), News(standing="ok"))
    registry.revoke("e")
    assert registry.able_since(begin) == {"a", "d"}
    assert registry.able_since(utc_now()) == frozenset()


def test_the_newest_health_of_a_client_is_kept_with_its_day(registry: Registry) -> None:
    registry.saw(CheckIn("a", 5))
    registry.saw(CheckIn("b", 5))
    assert (registry.client("a").health, registry.client("a").health_day) == (None, None)
    registry.note_health("a", Health(free_gb=7, labelled=30))
    registry.note_health("a", Health(free_gb=6, camera_seen=0, error=139))
    row = registry.client("a")
    assert row.health == Health(free_gb=6, camera_seen=0, error=139)
    assert row.health_day == int(utc_now().timestamp() // 86400)
    assert [one.health for one in registry.clients()] == [row.health, None]


def test_nothing_is_kept_of_the_health_of_who_is_no_member(registry: Registry) -> None:
    registry.saw(CheckIn("a", 5))
    registry.revoke("a")
    for client in ("a", "unknown"):
        registry.note_health(client, Health())
    registry.saw(CheckIn("b", 5))
    Registry(registry.engine, "other").note_health("b", Health())
    assert [one.health for one in registry.clients()] == [None, None]


def test_a_health_goes_when_its_time_is_up_and_one_of_another_version_is_not_shown(registry: Registry) -> None:
    other = Registry(registry.engine, "other")
    for one, client in ((registry, "a"), (other, "z")):
        one.saw(CheckIn(client, 1))
        one.note_health(client, Health(minutes=3))
    assert registry.prune(utc_now() + datetime.timedelta(days=89)).health == 0
    assert registry.prune(utc_now() + datetime.timedelta(days=92)).health == 1
    assert registry.client("a").health is None and other.client("z").health == Health(minutes=3)
    registry.note_health("a", Health())
    with registry.engine.begin() as connection:
        connection.execute(sa.update(Base.metadata.tables["health"]).values(said={"humour": 3}))
    assert registry.client("a").health is None
