"""A registry on every database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_databases import DATABASES, fresh_database

from server.registry import Registry
from server.registry.database import open_database


@pytest.fixture(params=DATABASES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = Registry(open_database(url), "contract")
        yield made
        made.engine.dispose()
