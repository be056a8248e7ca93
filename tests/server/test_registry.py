"""The registry's contract on every database: rounds and replies. And what SQLite and the migrations promise."""

from __future__ import annotations

import datetime
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from registry_databases import fresh_database
from toy_fleet import CARD, expectation, honest_reply, toy_model

from mcoe_model.errors import DiskFull, ExitCode, McoeError, SchemaTooNew
from mcoe_model.protocol import CheckIn
from server.acceptance import Accepted, Rejected, judge
from server.registry import ABANDONED, CLOSED, OPEN, PUBLISHED, Registry, Transfer
from server.registry.artifacts import Artifacts
from server.registry.database import SQLITE_PRAGMAS, connect, migration_config, open_database, sqlite_url
from server.registry.tables import Base

BASE, NEXT = "b" * 64, "c" * 64


#: Rows as the first schema had them: two experiments, one round with an accepted and a rejected reply.
FIRST_SCHEMA = [
    *(
        f"INSERT INTO clients VALUES ('{client}', '2026-01-02 03:04:05+00', '2026-01-03 03:04:05+00', 10, '1')"
        for client in "abc"
    ),
    f"INSERT INTO models VALUES (1, 'contract', 1, '{BASE}', NULL, 'g', 'released', '2026-01-02 03:04:05+00')",
    f"INSERT INTO models VALUES (2, 'contract', 2, '{NEXT}', '{BASE}', 'g', 'released', '2026-01-02 03:04:05+00')",
    *(
        f"INSERT INTO rounds VALUES ({number}, '{experiment}', 1, 1, '{state}', '{BASE}', '{NEXT}', '{{}}', NULL,"
        " '2026-01-02 03:04:05+00', '2026-01-02 03:04:05+00', NULL)"
        for number, experiment, state in ((1, "contract", "published"), (2, "other", "abandoned"))
    ),
    *(f"INSERT INTO members VALUES ({round}, '{client}')" for round, client in ((1, "a"), (1, "b"), (2, "c"))),
    "INSERT INTO replies VALUES (1, 'a', 'u', TRUE, NULL, 1, 2, 10, 2.0, 1.0, 0.5, 1.0, '2026-01-02 03:04:05+00')",
    "INSERT INTO replies VALUES (1, 'b', NULL, FALSE, 'no', 1, 2, NULL, NULL, NULL, NULL, NULL, '2026-01-02 03:04:05')",
    "INSERT INTO router_statistics VALUES (1, 'a', 0, 10, 1, 10, 10.0)",
]


def accepted(client: str, examples: int = 10) -> Accepted:
    verdict = judge(honest_reply(expectation(), client, examples=examples), expectation())
    assert isinstance(verdict, Accepted)
    return verdict


class RegistryContract:
    """What a registry does, whatever its database."""

    __test__ = False

    @pytest.fixture
    def url(self) -> Iterator[str]:
        raise NotImplementedError

    @pytest.fixture
    def registry(self, url: str) -> Iterator[Registry]:
        made = Registry(open_database(url), "contract")
        for client in "abc":
            made.saw(CheckIn(client, 10))
        made.add_first_model(BASE, "generation")
        yield made
        made.engine.dispose()

    def test_the_tables_are_those_that_the_migrations_make(self, url: str) -> None:
        engine = open_database(url)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        engine.dispose()

    def test_a_database_that_is_at_the_newest_schema_is_left_as_it_is(self, registry: Registry, url: str) -> None:
        again = Registry(open_database(url), "contract")
        assert again.newest_model() == BASE
        again.engine.dispose()

    def test_a_registry_of_the_first_schema_is_migrated_with_its_rows(self, url: str) -> None:
        engine = connect(url)
        command.upgrade(migration_config(engine), "0001")
        with engine.begin() as connection:
            for statement in FIRST_SCHEMA:
                connection.execute(sa.text(statement))
        engine.dispose()
        registry = Registry(open_database(url), "contract")
        assert [(row.number, row.state, row.cohort) for row in registry.rounds()] == [(1, PUBLISHED, ("a", "b"))]
        assert registry.verdict(1, "b") is False
        a, b = registry.clients()
        assert (a.id, a.state, a.examples, a.rounds, a.accepted, a.rejected) == ("a", "enrolled", 10, 1, 1, 0)
        assert (b.id, b.state, b.node_id, b.rounds, b.accepted, b.rejected) == ("b", "enrolled", None, 1, 0, 1)
        assert a.first_seen == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        assert registry.newest_model() == NEXT
        assert [row.id for row in Registry(registry.engine, "other").clients()] == ["c"]
        with registry.engine.begin() as connection, pytest.raises(sa.exc.IntegrityError):
            connection.execute(sa.text("DELETE FROM clients WHERE id = 'a'"))
        registry.engine.dispose()

    def test_who_was_reported_lost_in_an_earlier_schema_stays_lost(self, url: str) -> None:
        engine = connect(url)
        command.upgrade(migration_config(engine), "0008")
        insert = sa.text(
            "INSERT INTO clients (id, experiment, state, public_key, learned_rounds)"
            " VALUES (:id, 'contract', :state, :key, 0)"
        )
        with engine.begin() as connection:
            for client, state, key in (("a", "lost", "KEY"), ("b", "lost", None), ("c", "revoked", "OTHER")):
                connection.execute(insert, {"id": client, "state": state, "key": key})
        engine.dispose()
        registry = Registry(open_database(url), "contract")
        for client in "abc":
            registry.forget(client)
        assert (registry.ended("KEY"), registry.ended("OTHER")) == ("lost", None)
        registry.engine.dispose()

    def test_settings_without_a_bound_are_stored(self, registry: Registry) -> None:
        settings = {"clip": math.inf, "nested": [{"low": -math.inf}, 1.5], "text": "inf"}
        registry.open_round(BASE, ("a",), settings, None)
        assert registry.rounds()[0].settings == settings
        registry.record_evaluation(BASE, "test", {"recall": [0.5, math.nan]})
        found = registry.evaluation(BASE, "test")
        assert found and math.isnan(found["recall"][1])

    def test_a_newer_schema_is_refused(self, registry: Registry, url: str) -> None:
        with registry.engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaTooNew, match="9999") as caught:
            open_database(url)
        assert caught.value.exit_code is ExitCode.SCHEMA_TOO_NEW

    def test_check_ins_are_kept_up_to_date(self, registry: Registry) -> None:
        registry.saw(CheckIn("a", 25, client_version="9.9"))
        with registry.engine.connect() as connection:
            query = sa.text("SELECT examples, client_version, first_seen <= last_seen FROM clients WHERE id = 'a'")
            assert tuple(connection.execute(query).one()) == (25, "9.9", True)

    def test_the_largest_check_in_that_can_be_said_can_be_stored(self, registry: Registry) -> None:
        registry.saw(CheckIn.from_record(CheckIn("ж" * 64, 1_000_000, client_version="v" * 64).to_record()))

    def test_the_first_model_is_added_once(self, registry: Registry) -> None:
        registry.add_first_model(NEXT, "generation")
        assert registry.newest_model() == BASE

    def test_rounds_go_from_open_over_closed_to_published(self, registry: Registry) -> None:
        assert registry.unfinished_round() is None
        opened = registry.open_round(BASE, ("c", "a"), {"rule": "median", "bounds": [1, 2.5]}, 3.25)
        assert (opened.number, opened.attempt, opened.state, opened.norm_bound) == (1, 1, OPEN, 3.25)
        assert opened.cohort == ("a", "c")
        assert opened.settings == {"rule": "median", "bounds": [1, 2.5]}
        assert registry.unfinished_round() == opened
        assert registry.is_open(opened.id)
        registry.close_round(opened.id)
        assert registry.unfinished_round() == replace(opened, state=CLOSED)
        assert not registry.is_open(opened.id)
        registry.publish_round(opened.id, NEXT, "generation")
        assert registry.unfinished_round() is None
        assert registry.rounds() == [replace(opened, state=PUBLISHED, published_sha256=NEXT)]
        assert (registry.newest_model(), registry.last_published()) == (NEXT, 1)

    def test_an_abandoned_round_is_tried_again_under_the_same_number(self, registry: Registry) -> None:
        for attempt in (1, 2):
            opened = registry.open_round(BASE, ("a",), {}, None)
            assert (opened.number, opened.attempt) == (1, attempt)
            registry.abandon_round(opened.id, "nobody came")
            assert registry.failed_attempts() == attempt
        assert [(row.state, row.reason) for row in registry.rounds()] == [(ABANDONED, "nobody came")] * 2
        published = registry.open_round(BASE, ("a",), {}, None)
        registry.publish_round(published.id, NEXT, "generation")
        assert registry.failed_attempts() == 0
        assert registry.open_round(NEXT, ("a",), {}, None).number == 2

    def test_an_accepted_reply_is_stored_with_its_router_statistics(self, registry: Registry) -> None:
        opened = registry.open_round(BASE, ("a", "b"), {}, None)
        assert registry.verdict(opened.id, "a") is None
        verdict = accepted("a")
        registry.record_reply(opened.id, "a", verdict, Transfer(100, 200))
        assert registry.verdict(opened.id, "a") is True
        stored = registry.replies(opened.id)[0]
        assert (stored.update_id, stored.norm, stored.examples) == (verdict.meta.update_id, verdict.norm, 10)
        assert (stored.bytes_down, stored.bytes_up, stored.loss_before, stored.reason) == (100, 200, 2.0, None)
        assert registry.router_statistics(opened.id) == {"a": verdict.report.router}

    def test_a_rejected_reply_is_stored_with_its_reason_alone(self, registry: Registry) -> None:
        opened = registry.open_round(BASE, ("a", "b"), {}, None)
        registry.record_reply(opened.id, "b", Rejected("because \x00 of ж"), Transfer(100, 0))
        assert registry.verdict(opened.id, "b") is False
        assert registry.replies(opened.id)[0].reason == "because ? of ж"
        assert registry.contributions(opened.id) == []

    def test_a_reply_is_stored_once(self, registry: Registry) -> None:
        opened = registry.open_round(BASE, ("a",), {}, None)
        registry.record_reply(opened.id, "a", accepted("a"), Transfer(1, 1))
        with pytest.raises(sa.exc.IntegrityError):
            registry.record_reply(opened.id, "a", Rejected("again"), Transfer(1, 1))
        assert registry.verdict(opened.id, "a") is True

    def test_a_reply_of_a_client_that_is_not_known_or_was_forgotten_is_not_stored(self, registry: Registry) -> None:
        opened = registry.open_round(BASE, ("a",), {}, None)
        registry.forget("a")
        for client in ("a", "mallory"):
            assert not registry.record_reply(opened.id, client, accepted("b"), Transfer(1, 1))
        assert registry.replies(opened.id) == []
        assert registry.router_statistics(opened.id) == {}

    def test_contributions_come_in_update_id_order_whenever_they_arrived(self, registry: Registry) -> None:
        opened = registry.open_round(BASE, ("a", "b", "c"), {}, None)
        for client in "cab":
            registry.record_reply(opened.id, client, accepted(client, examples=ord(client)), Transfer(1, 1))
        found = registry.contributions(opened.id)
        assert [c.update_id for c in found] == sorted(accepted(client).meta.update_id for client in "abc")
        assert {c.client_id: c.examples for c in found} == {client: ord(client) for client in "abc"}
        assert all(c.router == accepted(c.client_id, c.examples).report.router for c in found)

    def test_the_median_norm_is_over_accepted_replies_of_the_last_published_rounds(self, registry: Registry) -> None:
        assert registry.median_norm(5, "generation") is None
        for norm, state in ((1.0, PUBLISHED), (100.0, ABANDONED), (2.0, PUBLISHED), (4.0, PUBLISHED)):
            opened = registry.open_round(BASE, ("a", "b"), {}, None)
            registry.record_reply(opened.id, "a", replace(accepted("a"), norm=norm), Transfer(1, 1))
            registry.record_reply(opened.id, "b", Rejected("no"), Transfer(1, 1))
            if state == PUBLISHED:
                registry.publish_round(opened.id, NEXT, "generation")
            else:
                registry.abandon_round(opened.id, "test")
        assert registry.median_norm(5, "generation") == 2.0
        assert registry.median_norm(2, "generation") == 3.0
        assert registry.median_norm(1, "generation") == 4.0
        assert registry.median_norm(5, "another generation") is None

    def test_moments_belong_to_a_version_and_follow_its_bytes(self, registry: Registry) -> None:
        assert registry.moments_of(BASE) is None
        opened = registry.open_round(BASE, ("a",), {}, None)
        assert opened.moments_sha256 is None
        registry.publish_round(opened.id, NEXT, "generation", "released", "e" * 64)
        assert registry.moments_of(NEXT) == registry.model(NEXT).moments_sha256 == "e" * 64
        assert registry.open_round(NEXT, ("a",), {}, None, "e" * 64) == registry.unfinished_round()
        registry.publish_round(registry.rounds()[-1].id, "d" * 64, "generation", "held", "f" * 64)
        assert registry.moments_of(NEXT) is None, "a later version was held back"
        registry.release_again(2)
        assert registry.moments_of(NEXT) == "e" * 64
        assert registry.rounds()[-1].moments_sha256 == "e" * 64

    def test_a_request_for_a_round_is_answered_once(self, registry: Registry) -> None:
        other = Registry(registry.engine, "other")
        assert (registry.round_requested(), registry.last_opened()) == (False, None)
        assert registry.request_round() and not registry.request_round()
        assert registry.round_requested() and not other.round_requested()
        opened = registry.open_round(BASE, ("a",), {}, None)
        assert not registry.round_requested()
        assert registry.last_opened() is not None and other.last_opened() is None
        assert registry.request_round(), "one that is asked for while a round is open is for the next"
        registry.abandon_round(opened.id, "test")
        assert registry.round_requested()

    def test_why_no_round_is_open_is_kept_until_one_opens(self, registry: Registry) -> None:
        assert registry.waiting() is None
        registry.say_waiting("nobody is there")
        first = registry.waiting()
        registry.say_waiting("nobody is there")
        assert first is not None and registry.waiting() == first
        registry.say_waiting("the disk is full")
        changed = registry.waiting()
        assert changed is not None and changed.reason == "the disk is full" and changed.since >= first.since
        assert Registry(registry.engine, "other").waiting() is None
        registry.open_round(BASE, ("a",), {}, None)
        assert registry.waiting() is None

    def test_clips_are_learned_by_published_rounds_until_their_number_changes(self, registry: Registry) -> None:
        def play(publish: bool) -> None:
            opened = registry.open_round(BASE, ("a", "b"), {}, None)
            registry.record_reply(opened.id, "a", accepted("a"), Transfer(1, 1))
            registry.record_reply(opened.id, "b", Rejected("no"), Transfer(1, 1))
            if publish:
                registry.publish_round(opened.id, NEXT, "generation")
            else:
                registry.abandon_round(opened.id, "test")

        play(publish=True)
        play(publish=False)
        assert (registry.nothing_new(1), registry.nothing_new(2)) == ({"a"}, frozenset())
        registry.saw(CheckIn("a", 10))
        play(publish=True)
        assert registry.nothing_new(2) == {"a"}
        registry.saw(CheckIn("a", 11))
        assert registry.nothing_new(1) == frozenset()
        assert Registry(registry.engine, "other").nothing_new(0) == frozenset()

    def test_ancestors_are_those_of_the_lineage_the_nearest_first(self, registry: Registry) -> None:
        for sha256 in (NEXT, "d" * 64, "e" * 64):
            base = str(registry.newest_model())
            registry.publish_round(registry.open_round(base, ("a",), {}, None).id, sha256, "generation")
        assert registry.ancestors("e" * 64, 9) == ("d" * 64, NEXT, BASE)
        assert registry.ancestors("e" * 64, 2) == ("d" * 64, NEXT)
        assert registry.ancestors("e" * 64, 0) == registry.ancestors(BASE, 9) == ()

    def test_the_staleness_of_an_update_is_kept_and_it_goes_into_one_round(self, registry: Registry) -> None:
        verdict = replace(accepted("a"), staleness=3)
        for published in (False, True):
            opened = registry.open_round(BASE, ("a",), {}, None)
            registry.record_reply(opened.id, "a", verdict, Transfer(1, 1))
            assert [c.staleness for c in registry.contributions(opened.id)] == [3]
            assert not registry.took_update(verdict.meta.update_id)
            if published:
                registry.publish_round(opened.id, NEXT, "generation")
            else:
                registry.abandon_round(opened.id, "test")
        assert registry.took_update(verdict.meta.update_id)
        assert not Registry(registry.engine, "other").took_update(verdict.meta.update_id)

    def test_two_experiments_share_a_registry_without_meeting(self, registry: Registry) -> None:
        other = Registry(registry.engine, "other")
        assert other.newest_model() is None
        other.add_first_model(NEXT, "generation")
        opened = registry.open_round(BASE, ("a",), {}, None)
        assert (other.unfinished_round(), other.rounds(), other.failed_attempts()) == (None, [], 0)
        registry.record_reply(opened.id, "a", accepted("a"), Transfer(1, 1))
        registry.publish_round(opened.id, "d" * 64, "generation")
        assert (other.newest_model(), other.last_published(), other.median_norm(5, "generation")) == (NEXT, 0, None)

    def test_an_evaluation_is_stored_and_replaced(self, registry: Registry) -> None:
        assert registry.evaluation(BASE, "test") is None
        registry.record_evaluation(BASE, "test", {"war": 0.5})
        registry.record_evaluation(BASE, "test", {"war": 0.75, "per emotion": [0.5, None]})
        assert registry.evaluation(BASE, "test") == {"war": 0.75, "per emotion": [0.5, None]}
        assert registry.evaluation(BASE, "validation") is None


class TestSqlite(RegistryContract):
    __test__ = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        with fresh_database("sqlite", tmp_path) as url:
            yield url


class TestPostgresql(RegistryContract):
    __test__ = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        with fresh_database("postgresql", tmp_path) as url:
            yield url


def test_the_pragmas_are_really_set_on_every_connection(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "registry.sqlite"))
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    assert expected.keys() == SQLITE_PRAGMAS.keys()
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected}
            assert found == expected
    engine.dispose()


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from server.registry.database import open_database

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def kill(connection, cursor, statement, parameters, context, many):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

open_database(sys.argv[1])
"""


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE replies", "DROP TABLE clients", "CREATE INDEX", "INSERT INTO alembic_version"]
)
def test_a_migration_that_is_killed_leaves_a_database_that_can_be_opened(statement: str, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "registry.sqlite")
    assert subprocess.run([sys.executable, "-c", KILLED, url, statement]).returncode == -9
    registry = Registry(open_database(url), "test")
    registry.add_first_model(BASE, "generation")
    assert registry.newest_model() == BASE
    registry.engine.dispose()


def test_a_registry_that_another_process_keeps_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQLITE_PRAGMAS, "busy_timeout", 50)
    path = tmp_path / "registry.sqlite"
    registry = Registry(open_database(sqlite_url(path)), "test")
    with sqlite3.connect(path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert registry.newest_model() is None, "readers do not wait for a writer"
        with pytest.raises(McoeError, match="locked by another process"):
            registry.add_first_model(BASE, "generation")
        other.rollback()
    registry.add_first_model(BASE, "generation")
    registry.engine.dispose()
    other.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not mounted or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_leaves_no_partial_rows(tiny_disk: Path) -> None:
    registry = Registry(open_database(sqlite_url(tiny_disk / "registry.sqlite")), "test")
    clients = [f"client {index:04}" for index in range(200)]
    registry.saw(CheckIn("a", 1))
    opened = registry.open_round(BASE, ("a",), {}, None)
    with pytest.raises(DiskFull):
        for client in clients:
            registry.record_evaluation(client, "test", {"filler": "x" * 10_000})
    stored = [client for client in clients if registry.evaluation(client, "test")]
    assert stored == clients[: len(stored)] != clients
    assert registry.rounds() == [opened]
    registry.engine.dispose()


def test_an_artifact_is_named_by_its_bytes_and_stored_once(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    sha256 = artifacts.put(toy_model(), CARD)
    written = artifacts.path(sha256).stat().st_mtime_ns
    assert artifacts.put(dict(reversed(toy_model().items())), CARD) == sha256
    assert artifacts.path(sha256).stat().st_mtime_ns == written
    assert artifacts.put(toy_model(seed=1), CARD) != sha256
    tensors, card = artifacts.get(sha256)
    assert card == CARD
    assert {name: value.tobytes() for name, value in tensors.items()} == {
        name: value.tobytes() for name, value in toy_model().items()
    }
