"""Opening the registry's database: engine, SQLite pragmas, migration to the newest schema."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, ExceptionContext, create_engine, event, inspect, text

from mcoe_model.errors import DiskFull, McoeError, MissingExtra, SchemaTooNew

if TYPE_CHECKING:
    from alembic.config import Config

#: Each pragma with its reason.
SQLITE_PRAGMAS = {
    "journal_mode": "WAL",  # readers (status, dashboard) never block the one writer
    "synchronous": "FULL",  # a committed verdict survives a power cut
    "foreign_keys": "ON",  # SQLite checks them only when asked
    "busy_timeout": 10_000,  # milliseconds to wait for another process's write
}

_MIGRATIONS = Path(__file__).parent / "migrations"


def sqlite_url(path: Path) -> str:
    """The database URL of a SQLite file."""
    return f"sqlite:///{path}"


def scrub(engine: Engine) -> None:
    """Write a SQLite file anew, so that no byte of what was deleted stays in it or in its log.

    Raises McoeError when others keep it locked. PostgreSQL frees such rows by itself, in its autovacuum.
    """
    if engine.dialect.name != "sqlite":
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")
        if connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
            raise McoeError("the registry is read all the time, so that deleted rows stay in its log; try again")


@dataclass(frozen=True)
class Schema:
    """The schema that a database has, None for an empty one, and those that this program knows, oldest first."""

    current: str | None
    known: tuple[str, ...]


def open_database(url: str) -> Engine:
    """An engine on a database that is at the newest schema, created or migrated if need be.

    Raises SchemaTooNew when a newer program wrote it. A write may later raise DiskFull, or McoeError for a locked file.
    """
    engine = connect(url)
    schema = schema_of(engine)
    if schema.current is not None and schema.current not in schema.known:
        raise SchemaTooNew(
            f"the registry has schema {schema.current}, which this version does not know; update the program"
        )
    if schema.current != schema.known[-1]:
        from alembic import command  # only to migrate: every command opens the registry, and hardly one must

        command.upgrade(migration_config(engine), "head")
    return engine


def connect(url: str) -> Engine:
    """An engine on a database as it is. Raises MissingExtra when the database's driver is not installed."""
    try:
        engine = create_engine(url)
    except ModuleNotFoundError as fault:
        raise MissingExtra(f"{fault.name} is not installed; run: pip install 'mcoe[server]'") from fault
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "handle_error", _name_error)
    return engine


def schema_of(engine: Engine) -> Schema:
    """Which schema a database has."""
    known = sorted(step.name.partition("_")[0] for step in _MIGRATIONS.glob("versions/[0-9]*.py"))
    with engine.connect() as connection:
        written = inspect(connection).has_table("alembic_version")
        current = connection.scalar(text("SELECT version_num FROM alembic_version")) if written else None
    return Schema(current, tuple(known))


def migration_config(engine: Engine) -> Config:
    """Alembic's configuration for the registry's migrations on this engine."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for name, value in SQLITE_PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _name_error(context: ExceptionContext) -> Exception | None:
    """A full disk and a locked file are errors that a user can do something about; the others stay as they are."""
    code = getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("no space left for the registry; free some and start again")
    if code == sqlite3.SQLITE_BUSY:
        return McoeError("the registry is locked by another process; end that one and start again")
    return None
