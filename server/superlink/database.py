"""Flower's database: what it keeps that nobody needs any more, and how that is taken out of the file.

The SuperLink writes it; these functions open the same SQLite file from whichever process calls them. Everything in it
can be made again from the registry but the messages on their way, so those are the only thing to be careful with.
Flower itself never deletes a node, and leaves behind the runs that ended and what was sent to nodes that did not come
for it. Pages that SQLite frees keep their bytes until they are used again: `compact` writes the file anew.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mcoe_model.errors import McoeError

#: Seconds after which a database is compacted whatever its size.
DAY_S = 86400.0
#: The same for the first time after a start, when the SuperLink has long made its tables.
FIRST_S = 600.0
#: Seconds to wait for another process's write.
PATIENCE_S = 30.0
#: How much larger the database may grow while rounds are open than while none is.
BUSY_GROWTH = 4
#: Objects that no message needs: each message is the root of a tree of them.
_ORPHANS = """
WITH RECURSIVE needed(id) AS (
    SELECT message_id FROM message_ins UNION SELECT message_id FROM message_res UNION SELECT message_id FROM message
    UNION SELECT child_id FROM object_children JOIN needed ON parent_id = id
)
DELETE FROM objects WHERE object_id NOT IN (SELECT id FROM needed)
"""
#: Uploads whose messages are gone: a message is stored before its objects are sent.
_STALE_UPLOADS = """
DELETE FROM object_push_sessions
WHERE (expires_at < datetime('now') OR session_id IN (SELECT session_id FROM object_push_session_roots))
AND session_id NOT IN (
    SELECT session_id FROM object_push_session_roots WHERE root_object_id IN (
        SELECT message_id FROM message_ins UNION SELECT message_id FROM message_res))
"""
_COUNT_REFERENCES = """
UPDATE objects SET ref_count = (SELECT COUNT(*) FROM object_children WHERE child_id = objects.object_id)
"""
#: What belongs to a run by its id, children before their parents.
_OF_A_RUN = (
    "message_ins",
    "message_res",
    "task_message",
    "task_event",
    "task_usage",
    "object_push_sessions",
    "run_objects",
)


@dataclass(frozen=True)
class Compacted:
    """Bytes of the database and its log before and after."""

    before: int
    after: int


def database_bytes(path: Path) -> int:
    """Bytes of the database with its write-ahead log; 0 before the SuperLink made it."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


def remove_nodes(path: Path, public_keys: Iterable[str]) -> None:
    """Let the holders of these keys (PEM) connect no longer, and know nothing of them."""
    keys = [(key.encode(),) for key in public_keys]
    if not keys or not path.exists():
        return
    with _opened(path) as database, _transaction(database):
        for table in ("message_ins", "message_res"):
            for end in ("src_node_id", "dst_node_id"):
                database.executemany(
                    f"DELETE FROM {table} WHERE {end} IN (SELECT node_id FROM node WHERE public_key = ?)", keys
                )
        database.executemany("DELETE FROM node WHERE public_key = ?", keys)


def compact(path: Path, sent_before: float | None = None) -> Compacted:
    """Take out runs that ended, messages of ``sent_before`` (Unix time) and what nobody can fetch; write the file anew.

    Nodes and runs under way stay. While the file is written, which takes seconds when it is large, the SuperLink waits.
    Raises McoeError when others keep the file locked for `PATIENCE_S`.
    """
    if not path.exists():
        return Compacted(0, 0)
    before = database_bytes(path)
    with _opened(path) as database:
        with _transaction(database):
            _remove_ended_runs(database)
            if sent_before is not None:
                for table in ("message_res", "message_ins"):
                    database.execute(f"DELETE FROM {table} WHERE created_at < ?", (sent_before,))
            database.execute(_STALE_UPLOADS)
            database.execute(_ORPHANS)
            database.execute(_COUNT_REFERENCES)
        database.execute("VACUUM")
        _empty_log(database)
    return Compacted(before, database_bytes(path))


class Compaction:
    """Compacts a database that has grown: larger than ``above`` bytes, and twice what it was after the last time.

    And once in ``every_s`` seconds whatever its size, first after `FIRST_S`: what was deleted stays in the file until
    then.
    """

    def __init__(self, path: Path, above: int, every_s: float = DAY_S) -> None:
        self._path = path
        self._above = above
        self._every_s = every_s
        self._left = 0
        self._next = time.monotonic() + min(FIRST_S, every_s)

    def is_due(self, is_busy: Callable[[], bool]) -> bool:
        """While rounds are open, which may never end: only one of `BUSY_GROWTH` times that size, or twice the age."""
        limit, size = max(self._above, 2 * self._left), database_bytes(self._path)
        late_s = time.monotonic() - self._next
        if size <= limit and (size == 0 or late_s < 0):
            return False
        return size > BUSY_GROWTH * limit or late_s >= self._every_s or not is_busy()

    def compact(self, sent_before: float) -> Compacted:
        """`compact`, and remember what was left."""
        done = compact(self._path, sent_before)
        self._left, self._next = done.after, time.monotonic() + self._every_s
        return done


def _remove_ended_runs(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TEMP TABLE ended AS SELECT run_id, primary_task_id, series_id FROM run "
        "WHERE primary_task_id IN (SELECT task_id FROM task WHERE finished_at IS NOT NULL)"
    )
    for table in _OF_A_RUN:
        database.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT run_id FROM ended)")
    tasks = "SELECT task_id FROM task WHERE run_id IN (SELECT run_id FROM ended)"
    database.execute(f"DELETE FROM task_logs WHERE task_id IN ({tasks})")
    database.execute("DELETE FROM task WHERE run_id IN (SELECT run_id FROM ended)")
    database.execute("DELETE FROM run WHERE run_id IN (SELECT run_id FROM ended)")
    database.execute("DELETE FROM series_runs WHERE run_id IN (SELECT run_id FROM ended)")
    for table in ("series_context", "run_series"):
        database.execute(f"DELETE FROM {table} WHERE series_id NOT IN (SELECT series_id FROM series_runs)")
    database.execute("DROP TABLE ended")


def _empty_log(database: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file and cut it, so that no deleted byte stays in it."""
    ends = time.monotonic() + PATIENCE_S
    while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > ends:
            raise McoeError("Flower's database is read all the time, so that deleted data stay in its log; try again")
        time.sleep(0.1)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys = ON")
        try:
            yield database
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            raise McoeError(f"{path} is locked by another process; try again") from fault


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
