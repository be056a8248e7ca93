"""The registry's contract on every database: what check-ins say of programs, sleepers and health."""

from __future__ import annotations

import datetime

import sqlalchemy as sa

from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, News
from server.registry import Registry, utc_now
from server.registry.tables import Base


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
