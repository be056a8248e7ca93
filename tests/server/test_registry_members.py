"""The registry's contract on every database: invitations, keys, consents, and who is a member."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_rounds import HOUR, opened, published

from mcoe_model.consent import Consent
from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.protocol import CheckIn
from server.registry import Registry, utc_now


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
