"""Fresh databases for the tests of the registry: a SQLite file, and one on a real PostgreSQL server.

PostgreSQL is looked for at MCOE_TEST_POSTGRESQL (an SQLAlchemy URL of a server where databases may be made), else at
127.0.0.1:5432. Where it is not found the test is skipped, with a warning that pytest shows at the end.
"""

from __future__ import annotations

import atexit
import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy as sa
from migrated import migrated_file

from server.registry.database import open_database, sqlite_url

DATABASES = ("sqlite", "postgresql")


@contextmanager
def fresh_database(kind: str, folder: Path, *, migrated: bool = False) -> Iterator[str]:
    """The URL of an empty database of this kind, which is gone afterwards; ``migrated``: at the newest schema.

    See `migrated`.
    """
    if kind == "sqlite":
        yield sqlite_url(migrated_file(folder / "registry.sqlite") if migrated else folder / "registry.sqlite")
        return
    server, name = sa.make_url(_postgresql()), f"mcoe_test_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {_postgresql_template(server)}" if migrated else ""))
    yield server.set(database=name).render_as_string(hide_password=False)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@cache
def _postgresql_template(server: sa.URL) -> str:
    """Its name. It goes with the process."""
    name = f"mcoe_test_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}")
    atexit.register(_administer, server, f"DROP DATABASE {name} WITH (FORCE)")
    open_database(server.set(database=name).render_as_string(hide_password=False)).dispose()
    return name


def _administer(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def _postgresql() -> str:
    if find_spec("psycopg") is None:
        _skip("psycopg is not installed: the registry is not tested on PostgreSQL")
    named = os.environ.get("MCOE_TEST_POSTGRESQL")
    if named:
        return named
    try:
        socket.create_connection(("127.0.0.1", 5432), timeout=1).close()
    except OSError:
        _skip("no PostgreSQL at 127.0.0.1:5432 and MCOE_TEST_POSTGRESQL is not set: the registry is not tested on it")
    return "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def _skip(reason: str) -> None:
    warnings.warn(reason, stacklevel=2)
    pytest.skip(reason)
