"""What is taken out of Flower's own database, with Flower's own schema, and what stays."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flwr.supercore.state.alembic.utils import run_migrations

from mcoe_model.errors import McoeError
from server.superlink import database as flower
from server.superlink.database import Compaction, compact, database_bytes, remove_nodes

ENDED, LIVE, CONTENT = 1, 2, b"word" * 50_000


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with two nodes, a run that ended and one under way."""
    file = tmp_path / "superlink.sqlite"
    engine = sa.create_engine(f"sqlite:///{file}")
    run_migrations(engine)
    engine.dispose()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        for node in (11, 12):
            put(database, "node", node_id=node, status="online", public_key=f"KEY {node}".encode())
        for run, finished in ((ENDED, "2026-11-21 09:00:00+00:00"), (LIVE, None)):
            task = 100 + run
            put(database, "task", task_id=task, type="t", run_id=run, pending_at="2026-11-21", finished_at=finished)
            put(database, "run", run_id=run, primary_task_id=task, series_id=run)
            put(database, "task_logs", timestamp=1.0, task_id=task, log="said")
            put(database, "run_series", series_id=run, federation_id="f", is_agent=0, created_at="2026-11-21",
                updated_at="2026-11-21")  # fmt: skip
            put(database, "series_context", series_id=run, context=b"context")
            put(database, "series_runs", id=run, series_id=run, run_id=run)
            message(database, f"of run {run}", run, 11, time.time())
        message(database, "old", LIVE, 12, time.time() - 1000)
        message(database, "fresh", LIVE, 12, time.time())
        stored(database, LIVE, "left behind")  # no message needs it
    yield file


def put(database: sqlite3.Connection, table: str, **row: Any) -> None:
    database.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
    )


def stored(database: sqlite3.Connection, run: int, name: str) -> None:
    put(database, "objects", object_id=name, content=name.encode() + CONTENT, is_available=1, ref_count=0)
    put(database, "run_objects", run_id=run, object_id=name)


def message(database: sqlite3.Connection, name: str, run: int, node: int, created: float) -> None:
    """A message to a node: its root object, one part, and one that it shares with the others of its run."""
    put(database, "message_ins", message_id=name, run_id=run, src_node_id=1, dst_node_id=node, created_at=created)
    for part in (name, f"part of {name}"):
        stored(database, run, part)
    put(database, "object_children", parent_id=name, child_id=f"part of {name}")
    shared = f"shared in {run}"
    if not database.execute("SELECT 1 FROM objects WHERE object_id = ?", (shared,)).fetchone():
        stored(database, run, shared)
    put(database, "object_children", parent_id=name, child_id=shared)
    database.execute("UPDATE objects SET ref_count = ref_count + 1 WHERE object_id IN (?, ?)",
                     (f"part of {name}", shared))  # fmt: skip


def names(path: Path, table: str, column: str) -> set[Any]:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        return {row[0] for row in database.execute(f"SELECT {column} FROM {table}")}


def test_what_ended_and_what_nobody_fetches_goes_and_the_rest_stays(path: Path) -> None:
    done = compact(path, time.time() - 500)
    assert done.before > done.after + 5 * len(CONTENT) and done.after == database_bytes(path)
    assert names(path, "run", "run_id") == names(path, "task", "run_id") == {LIVE}
    for table in ("run_series", "series_context", "series_runs"):
        assert names(path, table, "series_id") == {LIVE}
    assert names(path, "task_logs", "task_id") == {100 + LIVE}
    assert names(path, "message_ins", "message_id") == {"of run 2", "fresh"}
    parts = {"of run 2", "fresh", "part of of run 2", "part of fresh", "shared in 2"}
    assert names(path, "objects", "object_id") == names(path, "run_objects", "object_id") == parts
    assert names(path, "node", "public_key") == {b"KEY 11", b"KEY 12"}
    with closing(sqlite3.connect(path)) as database:
        counts = dict(database.execute("SELECT object_id, ref_count FROM objects"))
    assert counts["shared in 2"] == 2 and counts["part of fresh"] == 1 and counts["fresh"] == 0
    bytes_left = path.read_bytes()
    assert b"left behind" not in bytes_left and b"of run 1" not in bytes_left and b"fresh" in bytes_left


def test_without_a_time_no_message_of_a_run_under_way_goes(path: Path) -> None:
    compact(path)
    assert names(path, "message_ins", "message_id") == {"of run 2", "old", "fresh"}


def test_a_node_goes_with_its_key_and_its_messages(path: Path) -> None:
    remove_nodes(path, ["KEY 12", "unknown"])
    compact(path)
    assert names(path, "node", "node_id") == {11}
    assert names(path, "message_ins", "message_id") == {"of run 2"}
    assert [file.name for file in path.parent.iterdir() if b"KEY 12" in file.read_bytes()] == []


def test_an_upload_under_way_stays_and_one_that_was_given_up_goes(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for session, root in (("going", "fresh"), ("gone", "of run 1"), ("given up", "old"), ("begun", None)):
            put(database, "object_push_sessions", session_id=session, run_id=LIVE, pending_count=1,
                expires_at="2126-11-21 09:00:00+00:00")  # fmt: skip
            if root:
                put(database, "object_push_session_roots", session_id=session, root_object_id=root)
    compact(path, time.time() - 500)
    assert names(path, "object_push_sessions", "session_id") == {"going", "begun"}


def test_it_is_due_when_it_has_grown(path: Path) -> None:
    assert not Compaction(path, 100 << 20).is_due(lambda: False)
    compaction = Compaction(path, 1000)
    assert compaction.is_due(lambda: False)
    compaction.compact(time.time())
    assert not compaction.is_due(lambda: False)
    with closing(sqlite3.connect(path)) as database, database:
        for index in range(10):
            stored(database, LIVE, f"more {index}")
    assert compaction.is_due(lambda: False)


def test_rounds_that_never_end_delay_it_until_it_has_grown_much_more(path: Path) -> None:
    there = database_bytes(path)
    assert not Compaction(path, there // 2).is_due(lambda: True)
    assert Compaction(path, there // 5).is_due(lambda: True)


def test_it_is_due_by_age_whatever_its_size(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, idle = time.monotonic(), lambda: False
    monkeypatch.setattr(flower.time, "monotonic", lambda: now)
    compaction, nothing = Compaction(path, 100 << 20), Compaction(tmp_path / "nothing.sqlite", 100 << 20)
    assert not compaction.is_due(idle)
    now += flower.FIRST_S
    assert compaction.is_due(idle) and not nothing.is_due(idle)
    assert b"left behind" in path.read_bytes()
    compaction.compact(time.time() - 500)
    assert b"left behind" not in b"".join(file.read_bytes() for file in path.parent.glob("superlink.sqlite*"))
    assert not compaction.is_due(idle)
    now += flower.DAY_S
    assert compaction.is_due(idle) and not compaction.is_due(lambda: True)
    now += flower.DAY_S + 1  # a round is open all the time
    assert compaction.is_due(lambda: True)


def test_before_the_superlink_made_it_there_is_nothing_to_do(tmp_path: Path) -> None:
    nothing = tmp_path / "superlink.sqlite"
    remove_nodes(nothing, ["KEY"])
    assert compact(nothing).after == database_bytes(nothing) == 0
    assert not nothing.exists()


def test_a_database_that_stays_locked_is_an_error_of_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "PATIENCE_S", 0.2)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(McoeError, match="locked by another process"):
            compact(path)
        other.rollback()
    compact(path)
