"""A backup made while another process runs rounds can be restored, and the doctor finds nothing wrong with it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from registry_databases import DATABASES, fresh_database
from toy_fleet import CARD, enlist, honest_reply, toy_engine, toy_model

from mcoe_model.errors import DataInvalid, DataMissing, MissingExtra, ModelInvalid, OutputExists
from server.backup import backup, restore
from server.doctor import Premises, examine
from server.registry import ABANDONED, OPEN, PUBLISHED, Registry, utc_now
from server.registry.artifacts import Artifacts
from server.registry.database import connect, migration_config, open_database, sqlite_url
from server.rounds import RoundEngine

WRITER = """
import sys
from pathlib import Path
from toy_fleet import enlist, honest_reply, toy_engine

engine = toy_engine(Path(sys.argv[1]), url=sys.argv[2])
enlist(engine, "a", "b")
while True:
    current = engine.open(("a", "b"))
    for client in "ab":
        engine.receive(current, honest_reply(current.expectation, client))
    engine.finish(current)
"""


@dataclass
class Place:
    """Where a server's data are, or are to be restored to."""

    kind: str
    folder: Path
    url: str

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def engine(self) -> RoundEngine:
        return toy_engine(self.folder, url=self.url)


@pytest.fixture(params=DATABASES)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """A server's place, and an empty one of the same kind."""
    folders = tmp_path / "live", tmp_path / "restored"
    for folder in folders:
        folder.mkdir()
    with fresh_database(request.param, folders[0]) as first, fresh_database(request.param, folders[1]) as second:
        yield Place(request.param, folders[0], first), Place(request.param, folders[1], second)


def published(registry: Registry) -> list[str | None]:
    return [row.published_sha256 for row in registry.rounds() if row.state == PUBLISHED]


def test_a_backup_made_while_rounds_are_written_can_be_restored_and_goes_on(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    live, restored = places
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(live.folder), live.url], cwd=Path(__file__).parent
    )
    registry = live.engine().registry
    try:
        while len(published(registry)) < 3:
            assert writer.poll() is None
            time.sleep(0.05)
        before = len(published(registry))
        backup(live.url, live.models, tmp_path / "backup")
        after = len(published(registry))
        while len(published(registry)) < after + 2:  # the writer went on all the while
            assert writer.poll() is None
            time.sleep(0.05)
    finally:
        writer.kill()
        writer.wait()
    assert [path.name for path in tmp_path.glob(".backup*")] == []
    restore(tmp_path / "backup", restored.url, restored.models)
    engine = connect(restored.url)
    found = Registry(engine, "toy")
    assert before <= len(published(found)) <= after + 1
    assert published(found) == published(registry)[: len(published(found))]
    place = Premises(engine, restored.models, {"toy": restored.folder / "spool"}, utc_now(), 1)
    assert [finding.severity for finding in examine(place)] == ["note"]
    engine.dispose()
    again = restored.engine()
    assert again.resume() is None
    current = again.open(("a", "b"))
    again.receive(current, honest_reply(current.expectation, "a"))
    assert again.finish(current) is not None
    again.registry.engine.dispose()
    registry.engine.dispose()


def test_a_registry_of_an_older_schema_is_backed_up_as_it_is(places: tuple[Place, Place], tmp_path: Path) -> None:
    """Whoever updates makes a backup first, with the new program."""
    live, _ = places
    made = Artifacts(live.models).put(toy_model(), CARD)
    engine = connect(live.url)
    command.upgrade(migration_config(engine), "0001")
    row = f"(1, 'toy', 1, '{made}', NULL, 'g', 'released', '2026-01-02 03:04:05+00')"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO models VALUES {row}")
    engine.dispose()
    backup(live.url, live.models, tmp_path / "copy")
    assert [path.stem for path in (tmp_path / "copy" / "models").iterdir()] == [made]


def test_the_round_that_was_under_way_is_abandoned_by_restoring(places: tuple[Place, Place], tmp_path: Path) -> None:
    live, restored = places
    engine = live.engine()
    enlist(engine, "a")
    current = engine.open(("a",))
    engine.receive(current, honest_reply(current.expectation, "a"))
    backup(live.url, live.models, tmp_path / "backup")
    restore(tmp_path / "backup", restored.url, restored.models)
    registry = Registry(open_database(restored.url), "toy")
    assert [(row.state, row.reason) for row in registry.rounds()] == [
        (ABANDONED, "the registry was restored from a backup")
    ]
    assert [row.state for row in engine.registry.rounds()] == [OPEN]
    registry.engine.dispose()
    engine.registry.engine.dispose()


def test_nothing_that_is_there_is_overwritten(places: tuple[Place, Place], tmp_path: Path) -> None:
    live, _ = places
    live.engine().registry.engine.dispose()
    backup(live.url, live.models, tmp_path / "backup")
    with pytest.raises(OutputExists):
        backup(live.url, live.models, tmp_path / "backup")
    with pytest.raises(OutputExists):
        restore(tmp_path / "backup", live.url, live.models)


def test_what_is_no_registry_and_no_backup_is_named(places: tuple[Place, Place], tmp_path: Path) -> None:
    _, empty = places
    with pytest.raises(DataMissing, match="holds no registry"):
        backup(empty.url, empty.models, tmp_path / "backup")
    with pytest.raises(DataMissing, match="is no backup"):
        restore(tmp_path / "backup", empty.url, empty.models)
    assert not (empty.folder / "registry.sqlite").exists()


def test_a_backup_of_a_damaged_or_missing_artifact_leaves_nothing_behind(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    live, _ = places
    engine = live.engine()
    artifact = engine.artifacts.path(str(engine.registry.newest_model()))
    artifact.write_bytes(artifact.read_bytes() + b" ")
    with pytest.raises(ModelInvalid):
        backup(live.url, live.models, tmp_path / "backup")
    artifact.unlink()
    with pytest.raises(DataMissing, match="doctor"):
        backup(live.url, live.models, tmp_path / "backup")
    assert list(tmp_path.glob("*backup*")) + list(tmp_path.glob(".backup*")) == []
    engine.registry.engine.dispose()


def test_restoring_mends_a_damaged_artifact(places: tuple[Place, Place], tmp_path: Path) -> None:
    live, restored = places
    engine = live.engine()
    sha256 = str(engine.registry.newest_model())
    backup(live.url, live.models, tmp_path / "backup")
    restored.models.mkdir()
    (restored.models / f"{sha256}.safetensors").write_bytes(b"damaged")
    restore(tmp_path / "backup", restored.url, restored.models)
    assert restored.engine().artifacts.get(sha256)[1] == CARD
    engine.registry.engine.dispose()


def test_a_backup_of_another_database_is_refused(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path / "live")
    url = sqlite_url(tmp_path / "live" / "registry.sqlite")
    backup(url, engine.artifacts.folder, tmp_path / "backup")
    with pytest.raises(DataInvalid, match="sqlite database"):
        restore(tmp_path / "backup", "postgresql+psycopg://postgres@127.0.0.1/none", tmp_path / "models")
    engine.registry.engine.dispose()


def test_a_missing_pg_dump_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_database("postgresql", tmp_path) as url:
        engine = toy_engine(tmp_path / "live", url=url)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingExtra, match="postgresql-client"):
            backup(url, engine.artifacts.folder, tmp_path / "backup")
        engine.registry.engine.dispose()
