"""Databases at the newest schema for the tests: copies of one that the migrations have made once in this process.

They take longer than what most tests do with it. test_registry.py looks at the migrations themselves.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from server.registry.database import open_database, sqlite_url


def migrated_file(path: Path) -> Path:
    """A SQLite file at the newest schema, without rows; one that is there is left as it is."""
    if not path.exists():
        shutil.copyfile(Path(_sqlite_template().name) / "registry.sqlite", path)
    return path


@cache
def _sqlite_template() -> tempfile.TemporaryDirectory[str]:
    """Gone with the process."""
    made = tempfile.TemporaryDirectory()
    open_database(sqlite_url(Path(made.name) / "registry.sqlite")).dispose()
    return made
