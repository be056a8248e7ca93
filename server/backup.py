"""Backup and restore of a registry and the model files that it names, while the server runs.

A backup is one folder, complete or absent: `backup.json`, the database, and `models/`. The database is copied first, as
it was at one moment; every artifact that it names was written before its row and never changes, so the copy fits
together. The updates of a round under way are not copied, since nobody may keep them longer than their round; `restore`
abandons that round, and its clients train again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, inspect, make_url, select, text

from mcoe_model.errors import DataInvalid, DataMissing, DiskFull, McoeError, MissingExtra, ModelInvalid, OutputExists
from mcoe_model.files import atomic_write, fsync_folder, read_json, write_json
from mcoe_model.model_file import file_sha256
from server.registry import CLOSED, OPEN, Registry, utc_now
from server.registry.database import connect, open_database, schema_of, sqlite_url
from server.registry.tables import Round

_FORMAT = 1
#: The database's file in a backup, by dialect.
_DATABASE = {"sqlite": "registry.sqlite", "postgresql": "registry.dump"}
#: The columns of `models` that name an artifact; a registry of an older schema has not all of them.
_NAMING = ("sha256", "moments_sha256")


def backup(url: str, artifacts: Path, target: Path) -> None:
    """Copy the database and the artifacts that it names into the new folder ``target``. Rounds may go on meanwhile.

    Raises OutputExists when the folder is there, DataMissing without a registry or an artifact, ModelInvalid for a
    damaged artifact, DiskFull, and MissingExtra when PostgreSQL's pg_dump is not installed.
    """
    if target.exists():
        raise OutputExists(f"{target} exists already; name another folder")
    if not _holds_registry(url):
        raise DataMissing(f"{make_url(url)} holds no registry; check the address")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        dialect = make_url(url).get_backend_name()
        copy_database = _copy_sqlite if dialect == "sqlite" else _dump_postgresql
        named = copy_database(url, partial / _DATABASE[dialect])
        for sha256 in named:
            _copy_artifact(artifacts, partial / "models", sha256)
        about = {"format": _FORMAT, "made": utc_now().isoformat(), "dialect": dialect, "artifacts": named}
        write_json(partial / "backup.json", about)
        os.rename(partial, target)
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def restore(folder: Path, url: str, artifacts: Path) -> None:
    """Put a backup back: its artifacts into a folder that may hold others, its registry where there is none.

    A client that was forgotten after the backup was made is in it again: forget it again. Raises DataMissing for a
    folder that is no backup, DataInvalid for one of another kind of database, OutputExists when there is a registry
    already, and what `backup` raises for artifacts and tools.
    """
    if not (folder / "backup.json").is_file():
        raise DataMissing(f"{folder} is no backup; it holds no backup.json")
    about = read_json(folder / "backup.json")
    dialect = make_url(url).get_backend_name()
    if about["format"] != _FORMAT:
        raise DataInvalid(f"{folder} has format {about['format']}, which this version does not know; update it")
    if about["dialect"] != dialect:
        raise DataInvalid(f"{folder} holds a {about['dialect']} database, which cannot be restored to {dialect}")
    if _holds_registry(url):
        raise OutputExists(f"{make_url(url)} holds a registry already; restore to another place")
    for sha256 in about["artifacts"]:
        _copy_artifact(folder / "models", artifacts, sha256)
    copy = folder / _DATABASE[dialect]
    if dialect == "sqlite":
        path = _sqlite_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as partial:
            restored = Path(partial, path.name)
            shutil.copyfile(copy, restored)
            _abandon_unfinished(sqlite_url(restored))
            _fsync(restored)
            os.rename(restored, path)
        fsync_folder(path.parent)
    else:
        _run_tool("pg_restore", url, "--single-transaction", "--no-owner", str(copy))
        _abandon_unfinished(url)


def _copy_sqlite(url: str, copy: Path) -> list[str]:
    """Copy a live SQLite database by its online backup; returns the artifacts that the copy names."""
    try:
        with closing(sqlite3.connect(_sqlite_path(url))) as live, closing(sqlite3.connect(copy)) as copied:
            live.backup(copied)
            named = [sha256 for (sha256,) in copied.execute(_named_artifacts(url))]
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFull(f"no space left while writing {copy}; free some and start again") from fault
        raise
    _fsync(copy)
    return named


def _dump_postgresql(url: str, copy: Path) -> list[str]:
    """Dump a live PostgreSQL database; returns the artifacts that the dump names, since both see one snapshot."""
    engine = connect(url)
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
            named = list(connection.scalars(text(_named_artifacts(url))))
            _run_tool("pg_dump", url, "--format=custom", f"--snapshot={snapshot}", f"--file={copy}")
    finally:
        engine.dispose()
    _fsync(copy)
    return named


def _named_artifacts(url: str) -> str:
    """The query for every artifact that a registry names."""
    engine = connect(url)
    try:
        there = {column["name"] for column in inspect(engine).get_columns("models")}
    finally:
        engine.dispose()
    named = (f"SELECT {column} FROM models WHERE {column} IS NOT NULL" for column in _NAMING if column in there)
    return f"{' UNION '.join(named)} ORDER BY 1"


def _run_tool(tool: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs. The password goes through the environment, where others cannot read it."""
    database = make_url(url)
    address = URL.create(
        "postgresql", database.username, None, database.host, database.port, database.database, database.query
    )
    environment = os.environ | ({"PGPASSWORD": str(database.password)} if database.password else {})
    command = [tool, f"--dbname={address.render_as_string()}", *arguments]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except FileNotFoundError as fault:
        raise MissingExtra(f"{tool} is not installed; run: apt install postgresql-client") from fault
    except subprocess.CalledProcessError as fault:
        said = fault.stderr.strip().splitlines() or ["no reason given"]
        raise McoeError(f"{tool} failed: {said[0]}") from fault


def _copy_artifact(source: Path, target: Path, sha256: str) -> None:
    """Copy one model file durably and look whether the copy has the bytes that it is named after."""
    original, copy = (folder / f"{sha256}.safetensors" for folder in (source, target))
    if copy.is_file() and file_sha256(copy) == sha256:
        return
    if not original.is_file():
        raise DataMissing(f"{original} is missing, which the registry names; run `mcoe-server doctor`")
    with atomic_write(copy) as file, original.open("rb") as content:
        shutil.copyfileobj(content, file)
    if file_sha256(copy) != sha256:
        copy.unlink()
        raise ModelInvalid(f"{original} no longer has the bytes it is named after; run `mcoe-server doctor`")


def _abandon_unfinished(url: str) -> None:
    """Abandon the rounds whose accepted updates are not in the backup."""
    engine = open_database(url)
    with engine.connect() as connection:
        under_way = list(connection.scalars(select(Round.experiment).distinct().where(Round.state.in_([OPEN, CLOSED]))))
    for experiment in under_way:
        registry = Registry(engine, experiment)
        while current := registry.unfinished_round():
            registry.abandon_round(current.id, "the registry was restored from a backup")
    engine.dispose()


def _holds_registry(url: str) -> bool:
    if make_url(url).get_backend_name() == "sqlite" and not _sqlite_path(url).is_file():
        return False
    engine = connect(url)
    try:
        return schema_of(engine).current is not None
    finally:
        engine.dispose()


def _sqlite_path(url: str) -> Path:
    return Path(str(make_url(url).database))


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
