"""The doctor finds what is wrong with the data, on every database, and nothing where nothing is."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from registry_databases import DATABASES, fresh_database
from toy_fleet import enlist, honest_reply, toy_engine

from server.doctor import CHECKS, Finding, Premises, check_clock, check_file_system, examine
from server.registry import utc_now
from server.registry.database import connect, migration_config
from server.rounds import RoundEngine
from server.spool import spool_path


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoundEngine]:
    """An experiment with a published round and one under way, which has one accepted update."""
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = toy_engine(tmp_path / "data", url=url)
        enlist(made, "a", "b")
        for _ in range(2):
            current = made.open(("a", "b"))
            made.receive(current, honest_reply(current.expectation, "a"))
            if current.row.number == 1:
                made.finish(current)
        yield made
        made.registry.engine.dispose()


def premises(engine: RoundEngine) -> Premises:
    registry = engine.registry
    return Premises(registry.engine, engine.artifacts.folder, {registry.experiment: engine.spool}, utc_now(), 1)


def problems(engine: RoundEngine) -> list[Finding]:
    return [finding for finding in examine(premises(engine)) if finding.severity != "note"]


def test_nothing_is_wrong_with_a_server_in_the_middle_of_a_round(engine: RoundEngine) -> None:
    notes = examine(premises(engine))
    assert [finding.severity for finding in notes] == ["note"]
    assert notes[0].what.startswith("the registry takes ")


def test_a_missing_and_a_damaged_artifact_are_named_with_their_versions(engine: RoundEngine) -> None:
    first, second = (engine.artifacts.path(model.sha256) for model in engine.registry.models())
    engine.registry.release_again(2)
    first.unlink()
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    missing, damaged = problems(engine)
    assert (missing.severity, missing.what) == ("error", f"{first} is missing: version 1 of toy")
    assert (damaged.severity, damaged.what) == ("error", f"{second} is damaged: version 2 of toy, version 3 of toy")
    assert second.name in damaged.mend


def test_an_artifact_that_no_model_names_is_an_orphan(engine: RoundEngine) -> None:
    orphans = [engine.artifacts.path("f" * 64), engine.artifacts.folder / "left over"]
    for orphan in orphans:
        orphan.write_bytes(b"")
    assert [finding.what for finding in problems(engine)] == [f"{orphan} belongs to no model" for orphan in orphans]


def test_an_accepted_update_that_is_gone_or_torn_is_an_error(engine: RoundEngine) -> None:
    current = engine.registry.unfinished_round()
    assert current
    (contribution,) = engine.registry.contributions(current.id)
    path = spool_path(engine.spool / current.spool_name, contribution.update_id)
    path.write_bytes(path.read_bytes()[:-1])
    assert [(finding.severity, "torn" in finding.what) for finding in problems(engine)] == [("error", True)]
    path.unlink()
    assert [(finding.severity, "gone" in finding.what) for finding in problems(engine)] == [("error", True)]


def test_a_spool_that_no_round_needs_is_an_orphan(engine: RoundEngine) -> None:
    (engine.spool / "round-1-1").mkdir()
    (found,) = problems(engine)
    assert (found.severity, "round-1-1" in found.what, "coordinator" in found.mend) == ("warning", True, True)


def test_updates_that_are_kept_for_replay_are_no_orphans(engine: RoundEngine) -> None:
    engine.settings = replace(engine.settings, keep_updates=True)
    current = engine.resume()
    assert current
    engine.finish(current)
    kept = engine.open(("a", "b"))
    engine.receive(kept, honest_reply(kept.expectation, "a"))
    assert engine.finish(kept)
    assert (engine.spool / kept.row.spool_name).is_dir()
    assert problems(engine) == []


def test_rows_from_the_future_tell_of_a_wrong_clock(engine: RoundEngine) -> None:
    engine.registry.invite("c", "token", utc_now() + datetime.timedelta(days=3))  # expires in the future: no fault
    behind = replace(premises(engine), now=utc_now() - datetime.timedelta(hours=1))
    named = [finding.what.split(" lie ")[0] for finding in check_clock(behind)]
    assert "2 rows of replies" in named and "2 rows of models" in named
    assert list(check_clock(premises(engine))) == []


def test_a_disk_that_is_nearly_full_is_an_error(engine: RoundEngine) -> None:
    full = replace(premises(engine), disk_floor=1 << 62)
    assert [finding.severity for finding in examine(full)] == ["note", "error", "error"]


def test_another_schema_is_named_and_ends_the_examination(engine: RoundEngine) -> None:
    with engine.registry.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    (found,) = examine(premises(engine))
    assert (found.severity, found.mend) == ("error", "update the program")


@pytest.mark.parametrize("kind", DATABASES)
def test_an_old_schema_and_an_empty_database_are_told_apart(kind: str, tmp_path: Path) -> None:
    with fresh_database(kind, tmp_path) as url:
        engine = connect(url)
        place = Premises(engine, tmp_path / "models", {"toy": tmp_path / "spool"}, utc_now())
        assert [finding.what for finding in examine(place)] == ["the database holds no registry"]
        command.upgrade(migration_config(engine), "0001")
        (found,) = examine(place)
        assert "schema 0001" in found.what and "db upgrade" in found.mend
        engine.dispose()


def test_others_can_add_checks(engine: RoundEngine) -> None:
    def check_certificate(place: Premises) -> Iterator[Finding]:
        yield Finding("error", f"the certificate of {min(place.spools)} has expired", "make a new one")

    assert examine(premises(engine), (*CHECKS, check_certificate))[-1].what == "the certificate of toy has expired"


def test_a_data_folder_on_another_machines_disk(engine: RoundEngine, tmp_path: Path) -> None:
    mounts, place = tmp_path / "mounts", engine.artifacts.folder.absolute().parent
    lines = ["/dev/sda1 / ext4 rw 0 0", "files:/home /elsewhere nfs4 rw 0 0"]
    mounts.write_text("\n".join(lines))
    assert not list(check_file_system(replace(premises(engine), mounts=mounts)))
    mounts.write_text("\n".join([*lines, f"files:/data {place} nfs4 rw 0 0"]))
    (found,) = check_file_system(replace(premises(engine), mounts=mounts))
    assert found.severity == "error" and "nfs4" in found.what and "local disk" in found.mend
    assert not list(check_file_system(replace(premises(engine), mounts=tmp_path / "nothing")))
