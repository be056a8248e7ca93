"""Processes that are killed, full disks, changed and newer files: the store stays whole, and nothing of it is plain."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from killed_store import FIRST, SECOND, live_until
from session_times import KEY, TEXT, TRAINING, Clock, agree, opened, record
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from client.keys import DeviceKey
from client.sessions import PARTIAL, Label, Prediction, Store, database
from client.sessions.database import copies, open_database
from client.sessions.tables import Base
from client.sessions.values import SAYINGS
from client.wearers import Wearers
from mcoe_model.errors import DataInvalid, DiskFull, ExitCode, McoeError, SchemaTooNew
from mcoe_model.names import EMOTIONS


def kill(folder: Path, moment: str, number: int = signal.SIGKILL) -> Path:
    """A store whose process was killed at this moment; the folder of plain files."""
    (folder / "memory").mkdir()
    child = os.fork()  # not started afresh: imports take longer than all the rest
    if child == 0:
        try:
            live_until(folder, moment, number)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == number
    return folder / "memory"


def contents(store: Store) -> list[bytes]:
    (found,) = store.sessions()
    return [b"".join(store.open_segment(segment)) for segment in store.segments(found.id)]


def sealed(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "recordings").rglob("*") if path.is_file())


class TestKilled:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
    @pytest.mark.parametrize(
        "moment, kept",
        [
            ("before the row", [FIRST]),
            ("between row and sealing", [FIRST, SECOND]),
            ("while sealing", [FIRST, SECOND]),
            ("between sealing and row", [FIRST, SECOND]),
            ("between row and unlink", [FIRST, SECOND]),
            ("after it", [FIRST, SECOND]),
        ],
    )
    def test_a_segment_is_there_whole_or_not_at_all(
        self, tmp_path: Path, moment: str, kept: list[bytes], number: int
    ) -> None:
        memory = kill(tmp_path, moment, number)
        with opened(tmp_path) as store:
            recovered = store.recover(memory)
            (found,) = store.sessions()
            assert recovered.partial == (found.id,) and recovered.lost == 0
            assert (found.state, found.ends_us) == (PARTIAL, len(kept) * 10_000_000)
            assert found.ended_us == found.started_us + len(kept) * 10_000_000
            assert contents(store) == kept
            assert list(memory.iterdir()) == []
            assert sealed(tmp_path) == [f"{number:06d}.sealed" for number in range(len(kept))]
            assert store.recover(memory).partial == ()

    def test_after_a_power_cut_the_memory_is_empty_and_what_was_not_sealed_is_lost(self, tmp_path: Path) -> None:
        shutil.rmtree(kill(tmp_path, "while sealing"))
        with opened(tmp_path) as store:
            recovered = store.recover(tmp_path / "memory")
            assert (recovered.finished, recovered.lost, recovered.ownerless) == (0, 1, 1)
            assert contents(store) == [FIRST]
            assert sealed(tmp_path) == ["000000.sealed"]

    def test_after_a_power_cut_what_was_sealed_counts(self, tmp_path: Path) -> None:
        shutil.rmtree(kill(tmp_path, "between sealing and row"))
        with opened(tmp_path) as store:
            assert store.recover(tmp_path / "memory").finished == 1
            assert contents(store) == [FIRST, SECOND]

    def test_a_locked_store_leaves_what_can_still_be_sealed_until_it_is_unlocked(self, tmp_path: Path) -> None:
        memory = kill(tmp_path, "between row and sealing")
        (memory / "stranger.aedat4").write_bytes(b"eye")
        with opened(tmp_path, key=None) as store:
            assert store.recover(memory).plain == 1
            assert [path.name for path in memory.iterdir()] == ["1.aedat4"]
            store.unlock(KEY)
            assert store.recover(memory).finished == 1
            assert contents(store) == [FIRST, SECOND]
            assert list(memory.iterdir()) == []

    def test_after_a_withdrawal_nothing_is_sealed_any_more(self, tmp_path: Path) -> None:
        memory = kill(tmp_path, "between row and sealing")
        with opened(tmp_path) as store:
            store.withdraw("capture")
            assert store.recover(memory).lost == 1
            assert contents(store) == [FIRST] and list(memory.iterdir()) == []

    @pytest.mark.parametrize("moment", ["between key and files", "among the files"])
    def test_a_deletion_is_finished(self, tmp_path: Path, moment: str) -> None:
        kill(tmp_path, moment)
        with opened(tmp_path) as store:
            (found,) = store.sessions()
            assert not found.raw
            store.recover()
            assert not (tmp_path / "recordings" / found.id).exists()

    def test_a_session_of_which_nothing_was_written_is_nothing(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            agree(store)
            record(store, tmp_path / "memory", end=False)
            assert store.recover().partial == ()
            assert store.sessions() == []


class TestFullDisk:
    def test_a_segment_that_does_not_fit_leaves_nothing_and_can_be_kept_once_there_is_room(
        self, small_disk: Path, tmp_path: Path
    ) -> None:
        memory = tmp_path / "memory"
        with opened(small_disk) as store:
            agree(store)
            session = record(store, memory, b"eye", end=False)
            filler = small_disk / "filler"
            filler.write_bytes(bytes(1_200_000))
            plain = memory / "1.aedat4"
            plain.write_bytes(SECOND * 3)
            before = {path: path.read_bytes() for path in (small_disk / "recordings").rglob("*") if path.is_file()}
            with pytest.raises(DiskFull):
                store.add_segment(session, 1, plain, 0, 10_000_000, events=1, frames=1)
            after = {path: path.read_bytes() for path in (small_disk / "recordings").rglob("*") if path.is_file()}
            assert after == before and plain.exists()
            assert store.session(session).segments == 1
            filler.unlink()
            store.add_segment(session, 1, plain, 10_000_000, 20_000_000, events=1, frames=1)
            assert contents(store) == [b"eye", SECOND * 3] and not plain.exists()

    def test_a_disk_without_any_room_says_so_and_keeps_what_was_there(self, small_disk: Path, tmp_path: Path) -> None:
        with opened(small_disk) as store:
            agree(store)
            session = record(store, tmp_path / "memory", b"eye")
            span = store.add_span(session, 0, 1_000_000)
            with pytest.raises(OSError, match="space"), (small_disk / "filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            with pytest.raises(DiskFull):
                for _ in range(2000):
                    store.label(span.id, Label("fear"))
            (small_disk / "filler").unlink()
            assert store.label(span.id, Label("surprise")).label == Label("surprise")
            assert contents(store) == [b"eye"]


class TestPlaintext:
    def test_nothing_of_a_whole_life_can_be_read_on_the_disk(self, tmp_path: Path) -> None:
        events = b"".join(number.to_bytes(8, "little") + b"\x64\x00\x32\x00\x01" for number in range(20_000))
        words = [*SAYINGS, "a film of spiders"]
        patterns = [*(word.encode() for word in words), events[:26], events[13 * 9_000 : 13 * 9_000 + 26]]
        paths = Wearers(tmp_path).new("A1")
        memory = tmp_path.with_name(f"{tmp_path.name}-memory")
        clock = Clock()

        def plain() -> list[bytes]:
            found = b"".join(path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file())
            assert len(found) > len(events)
            return [pattern for pattern in patterns if pattern in found]

        with opened(paths.folder, clock=clock) as store:
            agree(store)
            session = record(store, memory, events, events)
            guess = Prediction((0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "a" * 64)
            for number, said in enumerate(SAYINGS):
                span = store.add_span(session, number * 10**6, (number + 1) * 10**6, predicted=guess)
                store.ask(span.id)
                store.label(span.id, Label("fear", 3))
                store.label(span.id, Label(said, 5))
                store.trim(span.id, number * 10**6, number * 10**6 + 600_000)
                assert store.span(span.id).predicted == guess
            store.add_marker("stimulus", "a film of spiders", session_id=session)
            store.mark_learned([(one.span, one.label_id) for one in store.to_learn().lessons], TRAINING)
            assert plain() == []
            store.undo(1)
            record(store, memory, events)
            store.delete_raw(session)
            clock.turn(1)
        assert plain() == []
        assert list(memory.iterdir()) == []

    def test_labels_of_different_length_cannot_be_told_apart(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            agree(store)
            session = record(store, tmp_path / "memory", b"eye")
            for said in SAYINGS:
                store.label(store.add_span(session, 0, 1_000_000).id, Label(said))
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:
            sizes = connection.execute("SELECT count(DISTINCT length(said)), count(DISTINCT said) FROM span_labels")
            assert sizes.fetchone() == (1, len(SAYINGS))
        connection.close()

    def test_changed_and_exchanged_values_are_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            agree(store)
            session = record(store, tmp_path / "memory", b"eye")
            guess = Prediction((1.0, 0, 0, 0, 0, 0, 0), "a" * 64)
            store.label(store.add_span(session, 0, 1_000_000, predicted=guess).id, Label(EMOTIONS[0]))
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:
            connection.execute("UPDATE span_labels SET said = (SELECT predicted FROM spans)")
        connection.close()
        with opened(tmp_path) as store, pytest.raises(DataInvalid, match="span_labels"):
            store.spans()
        with opened(tmp_path, key=DeviceKey(bytes(32))) as store, pytest.raises(DataInvalid):
            store.spans()


class TestSchema:
    @pytest.fixture
    def newer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """This program as of tomorrow, with one migration more; its file."""
        home = tmp_path / "migrations"
        shutil.copytree(database._MIGRATIONS, home)
        monkeypatch.setattr(database, "_MIGRATIONS", home)
        step = home / "versions" / "9999_more.py"
        step.write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n"
            'revision, down_revision, branch_labels, depends_on = "9999", "0002", None, None\n'
            'def upgrade():\n    op.create_table("more", sa.Column("id", sa.Integer(), primary_key=True))\n'
        )
        return step

    def lived_in(self, folder: Path) -> str:
        with opened(folder) as store:
            agree(store)
            return record(store, folder / "memory", b"eye")

    def test_the_tables_are_those_that_the_migrations_make(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "store.sqlite")
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            newest = connection.scalar(text("SELECT version_num FROM alembic_version"))
        assert newest == ScriptDirectory.from_config(database.migration_config(engine)).get_current_head()
        engine.dispose()
        assert (tmp_path / "store.sqlite").stat().st_mode & 0o777 == 0o600

    def test_what_was_said_before_labels_told_of_their_clock_stays(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            agree(store)
            session = record(store, tmp_path / "memory", b"eye")
            span = store.label(store.add_span(session, 0, 1_000_000).id, Label("fear")).id
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:  # as the first program left it
            for table, column in [
                *((table, "monotonic_ns") for table in ("consents", "span_labels", "training_history")),
                *((table, "clock_state") for table in ("span_labels", "training_history")),
            ]:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.close()
        with opened(tmp_path) as store:
            store.label(span, Label("sadness"))
            before, now = store.versions(span)
            assert (before.label, before.clock_state) == (Label("fear"), None)
            assert now.label == Label("sadness") and now.clock_state is not None
            assert store.allowed("capture")

    def test_a_fault_shows_no_row(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "store.sqlite")
        with engine.connect() as connection, pytest.raises(StatementError) as caught:
            connection.execute(text("SELECT :said FROM nothing"), {"said": "disgust"})
        engine.dispose()
        assert "disgust" not in str(caught.value)

    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        self.lived_in(tmp_path)
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        with pytest.raises(SchemaTooNew, match="9999") as caught, opened(tmp_path):
            pass
        assert caught.value.exit_code is ExitCode.SCHEMA_TOO_NEW

    def test_a_copy_is_made_before_a_migration_and_goes_with_the_next_deletion(
        self, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        session = self.lived_in(tmp_path)
        request.getfixturevalue("newer")
        with opened(tmp_path) as store:
            (copy,) = copies(tmp_path / "store.sqlite")
            with sqlite3.connect(copy) as connection:
                assert connection.execute("SELECT id FROM sessions").fetchall() == [(session,)]
                assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
            connection.close()
            assert copy.stat().st_mode & 0o777 == 0o600
            assert contents(store) == [b"eye"]
            store.delete_raw(session)
            assert copies(tmp_path / "store.sqlite") == []

    def test_a_migration_that_fails_changes_nothing(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.lived_in(tmp_path)
        step: Path = request.getfixturevalue("newer")
        whole = step.read_text()
        step.write_text(whole + '    raise RuntimeError("torn")\n')
        with pytest.raises(RuntimeError, match="torn"), opened(tmp_path):
            pass
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
            assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        connection.close()
        step.write_text(whole)
        with opened(tmp_path) as store:
            assert contents(store) == [b"eye"]

    def test_a_store_that_another_process_keeps_locked_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(database.SQLITE_PRAGMAS, "busy_timeout", 20)
        with opened(tmp_path) as store:
            other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(McoeError, match="locked by another process"):
                store.answer_consents({"capture": True}, TEXT)
            other.close()
            agree(store)

    def test_who_reads_all_the_time_delays_that_deleted_keys_are_gone_and_that_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(database.SQLITE_PRAGMAS, "busy_timeout", 20)
        session = self.lived_in(tmp_path)
        with opened(tmp_path) as store:
            reader = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
            reader.execute("BEGIN")
            (wrapped,) = reader.execute("SELECT wrapped_key FROM sessions").fetchone()
            with pytest.raises(McoeError, match="read all the time"):
                store.delete_raw(session)
            assert sealed(tmp_path) == [] and not store.session(session).raw
            reader.close()
            store.recover()
            assert wrapped not in b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
