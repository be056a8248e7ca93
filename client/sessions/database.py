"""Opening a wearer's database: engine, SQLite pragmas, a copy, and migration to the newest schema."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, ExceptionContext, create_engine, event

from mcoe_model.errors import DiskFull, McoeError, SchemaTooNew
from mcoe_model.files import fsync_folder

#: Each pragma with its reason.
SQLITE_PRAGMAS = {
    "journal_mode": "WAL",  # commands that read never block the one writer
    "synchronous": "FULL",  # a label and a withdrawal survive a power cut
    "foreign_keys": "ON",  # SQLite checks them only when asked
    "busy_timeout": 10_000,  # milliseconds to wait for another process's write
    "secure_delete": "ON",  # a key that was deleted is overwritten, not only forgotten
}

_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(path: Path, look: bool = False) -> Engine:
    """An engine on a database that is at the newest schema, created or migrated if need be.

    Before it is migrated it is copied to a file beside it (`copies`). Raises SchemaTooNew when a newer program wrote
    it. A write may later raise DiskFull, or McoeError for a file that another process keeps locked.

    With ``look`` nothing is changed, now or later: one that would have to be migrated raises McoeError.
    """
    url = f"sqlite:///{path}"
    if look:
        # Beside a database that nobody has open SQLite would leave two files of its own, unless nothing can change.
        at_rest = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        url = f"sqlite:///{path.absolute().as_uri()}?mode=ro{at_rest}&uri=true"
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    engine = create_engine(url, hide_parameters=True)  # a traceback in a log shows no label
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "handle_error", _name_error)
    config = migration_config(engine)
    known = [revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()]
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        engine.dispose()
        raise SchemaTooNew(
            f"the wearer's store has schema {current}, which this version does not know; update the program"
        )
    if look and current != known[0]:
        engine.dispose()
        raise McoeError("the wearer's store is of an earlier version; this one brings it up to date at its next start")
    if current != known[0]:
        if current is not None:
            _copy(path, path.with_name(f"{path.name}.before-{known[0]}"))
        command.upgrade(config, "head")
    return engine


def copies(path: Path) -> list[Path]:
    """The copies that were made before migrations. They hold keys: whoever erases one must erase them, too."""
    return sorted(path.parent.glob(f"{path.name}.before-*"))


def forget_deleted(engine: Engine, path: Path) -> None:
    """See to it that no byte of what was deleted stays in the database's log or in a copy.

    Raises McoeError while another process reads. What a flash memory keeps in cells that it no longer shows, nobody can
    say: there the passphrase protects.
    """
    for copy in copies(path):
        copy.unlink(missing_ok=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
            raise McoeError("the wearer's store is read all the time, so that deleted rows stay in its log; try again")


def migration_config(engine: Engine) -> Config:
    """Alembic's configuration for the store's migrations on this engine."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def _copy(path: Path, target: Path) -> None:
    """The database as it is, its log included. Raises DiskFull."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    source, copy = sqlite3.connect(path), sqlite3.connect(partial)
    try:
        source.backup(copy)
    except sqlite3.OperationalError as fault:
        partial.unlink(missing_ok=True)
        raise _named(fault) or fault from fault
    finally:
        source.close()
        copy.close()
    partial.replace(target)
    fsync_folder(target.parent)


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for name, value in SQLITE_PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _name_error(context: ExceptionContext) -> Exception | None:
    """A full disk and a locked file are errors that a user can do something about; the others stay as they are."""
    return _named(context.original_exception)


def _named(fault: BaseException) -> Exception | None:
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("no space left for the wearer's store; free some, or delete recordings")
    if code == sqlite3.SQLITE_BUSY:
        return McoeError("the wearer's store is locked by another process; end that one and start again")
    return None
