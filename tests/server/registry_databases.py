"""Fresh databases for the tests of the registry: a SQLite file, and one on a real PostgreSQL server.

PostgreSQL is looked for at MCOE_TEST_POSTGRESQL (an SQLAlchemy URL of a server where databases may be made), else at
127.0.0.1:5432. Where it is not found the test is skipped, with a warning that pytest shows at the end.
"""

from __future__ import annotations

import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.registry.database import sqlite_url

DATABASES = ("sqlite", "postgresql")


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind, which is gone afterwards."""
    if kind == "sqlite":
        yield sqlite_url(folder / "registry.sqlite")
        return
    server = sa.make_url(_postgresql())
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"mcoe_test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


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
