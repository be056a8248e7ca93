"""The wearer's own export: everything, readable by others, on a local medium alone."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from exported import SERIAL, Wearer, a_labelled_wearer
from recorded import read_independently
from toy_camera import write_toy_model
from toy_recordings import START_US
from typer.testing import CliRunner

from client.cli import app
from client.consent_text import ConsentTexts
from client.enrolment import make_key
from client.export.everything import ExportFile, everything
from client.export.folder import write_folder, zipped
from client.export.place import check_file, check_place
from client.filesystem import filesystem, is_remote
from client.leaving import Goodbye, key_id
from client.only_one import only_one
from client.own_models import LEARNED_HERE, seal_model
from client.wearable import Wearable
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import (
    DataMissing,
    DiskFull,
    ExitCode,
    Locked,
    OutputExists,
    SettingsError,
)
from mcoe_model.files import write_json
from mcoe_model.model_file import model_bytes, read_model


@pytest.fixture(scope="module")
def wearer(tmp_path_factory: pytest.TempPathFactory) -> Wearer:
    """Not to be changed."""
    return a_labelled_wearer(tmp_path_factory.mktemp("wearer") / "wearable")


class TestEverything:
    def test_the_wearer_gets_all_there_is_readable_by_others(self, wearer: Wearer, tmp_path: Path) -> None:
        out = tmp_path / "mine"
        done = CliRunner().invoke(app, ["export", "--out", str(out), "--dir", str(wearer.folder)])
        assert done.exit_code == 0 and "not encrypted" in done.stdout, done.output
        assert out.stat().st_mode & 0o777 == 0o700 and not list(tmp_path.glob("*.partial"))
        assert json.loads((out / "wearer.json").read_bytes())["wearer"] == wearer.code
        (session,) = json.loads((out / "sessions.json").read_bytes())
        assert [span["label"] and span["label"]["said"] for span in session["spans"]] == [
            None, "happiness", "neutral", "other", "skip",
        ]  # fmt: skip
        labelled = session["spans"][1]
        assert labelled["label_versions"][0]["label"] == {"said": "happiness", "intensity": 3}
        assert labelled["predicted"]["probabilities"][0] == 0.4
        assert session["markers"][0]["text"] == "my boss Heinz came in"
        answers = json.loads((out / "consents.json").read_bytes())
        assert [answer["kind"] for answer in answers if answer["given"]] == list(CONSENTS)
        assert [path.read_text() for path in (out / "consent_texts").iterdir()] == [wearer.text.text]
        (file,) = sorted((out / "recordings" / session["id"]).iterdir())
        seen = read_independently([file])
        assert (len(seen.events), len(seen.frames), len(seen.imu), len(seen.triggers)) == (4_000, 60, 2_000, 2)
        assert seen.events["timestamp"][0] == START_US
        assert not any(SERIAL.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())

    def test_the_pages_zip_holds_the_same(self, wearer: Wearer, tmp_path: Path) -> None:
        write_folder(tmp_path / "mine", everything(wearer.store, wearer.key, wearer.paths, wearer.folder), 0)
        portions = list(zipped(everything(wearer.store, wearer.key, wearer.paths, wearer.folder)))
        archive = zipfile.ZipFile(io.BytesIO(b"".join(portions)))
        assert archive.testzip() is None
        files = {str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*") if path.is_file()}
        assert set(archive.namelist()) == files
        assert all(
            archive.read(name) == (tmp_path / "mine" / name).read_bytes() for name in files - {"wearer.json"}
        )

    def test_a_long_zip_comes_in_portions(self) -> None:
        content = os.urandom(3 << 20)
        portions = list(zipped(iter([("a", content), ("b", b"")])))
        assert len(portions) > 2 and max(map(len, portions)) < 2 << 20
        assert zipfile.ZipFile(io.BytesIO(b"".join(portions))).read("a") == content

    def test_the_wearable_that_runs_gives_it_to_its_page(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        made.label(made.record(), 0.1, 0.9, "fear")
        made.store.close()

        async def exported() -> bytes:
            wearable, stopping = Wearable(made.folder, "none", made.store.rules, ConsentTexts(None)), asyncio.Event()
            await wearable.open()
            content = b"".join([portion async for portion in wearable.export()])
            stopping.set()
            await wearable.run(stopping)
            return content

        content = asyncio.run(exported())
        assert {"sessions.json", "wearer.json"} < set(zipfile.ZipFile(io.BytesIO(content)).namelist())

    def test_what_cannot_be_read_is_named_and_the_rest_is_there(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        first, second = made.record(), made.record()
        (sealed,) = (made.paths.recordings / first).iterdir()
        sealed.write_bytes(sealed.read_bytes()[:-1])
        write_folder(tmp_path / "mine", everything(made.store, made.key, made.paths, made.folder), 0)
        told = json.loads((tmp_path / "mine" / "wearer.json").read_bytes())
        assert told["unreadable"] == [f"recordings/{first}/000000.aedat4"]
        assert len(read_independently([tmp_path / "mine" / "recordings" / second / "000000.aedat4"]).events) == 2_000

    def test_what_lies_beside_the_store_is_in_it_without_a_key(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        paths, out = made.paths, tmp_path / "mine"
        fleet = write_toy_model(tmp_path / "base.safetensors", 1)
        tensors, card = read_model(fleet)
        content = model_bytes(tensors, card.child_of("a" * 64, LEARNED_HERE, {"fleet_model": "a" * 64}))
        own = seal_model(paths.models, made.key.derive("lessons"), content, "a" * 64)
        (paths.models / f"{'a' * 64}.safetensors").write_bytes(fleet.read_bytes())
        (paths.models / f"{'b' * 64}.sealed").write_bytes(b"a" * 99)  # damaged
        make_key(paths)
        paths.membership.write_text('address = "fleet.example:1"\nclient_id = "w7"\nclips = ""\nsubject = ""\n')
        write_json(paths.health, {"day": 20_000})
        (made.folder / "receipts").mkdir()
        for key, client in ((key_id(paths), "w7"), ("0" * 16, "somebody")):  # the other one wore it before
            told = Goodbye("withdraw", client, "fleet.example:1", "2026-11-20", "2026-11-21", "", {"client_id": client})
            write_json(made.folder / "receipts" / f"withdraw-{key}.json", asdict(told))
        write_folder(out, everything(made.store, made.key, paths, made.folder), 0)
        assert [path.stem for path in (out / "models").iterdir()] == [own]
        assert read_model(out / "models" / f"{own}.safetensors")[1].origin == LEARNED_HERE
        known = json.loads((out / "fleet.json").read_bytes())
        assert (known["membership"]["client_id"], known["leaving"]["receipt"]) == ("w7", {"client_id": "w7"})
        assert json.loads((out / "health.json").read_bytes()) == {"day": 20_000}
        assert json.loads((out / "wearer.json").read_bytes())["unreadable"] == [f"models/{'b' * 64}.safetensors"]
        written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
        secret = json.loads(paths.device_key.read_bytes())["key"].encode()
        assert not [one for one in (made.key.secret, secret, b"PRIVATE KEY", b"somebody") if one in written]
        readme = (out / "README.txt").read_text()
        assert all(path.name in readme for path in out.iterdir() if path.name != "README.txt")
        assert all(name in readme for name in ("lessons", "outbox", "device.key"))

    def test_while_the_wearable_runs_the_command_changes_nothing(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        span = made.label(made.record(), 0.1, 0.9, "fear")
        assert made.store.ask(span) is not None
        ended = "SELECT ended, expires_us FROM prompts"
        connection = sqlite3.connect(made.paths.store)
        connection.execute("UPDATE prompts SET expires_us = 1")
        connection.commit()
        asked = ["export", "--out", str(tmp_path / "mine"), "--dir", str(made.folder)]
        with only_one(made.folder):
            connection.execute("BEGIN IMMEDIATE")  # nobody else writes now
            done = CliRunner().invoke(app, asked)
            connection.rollback()
        assert done.exit_code == 0, done.output
        assert connection.execute(ended).fetchall() == [(None, 1)]
        connection.close()
        assert [one["ended"] for one in json.loads((tmp_path / "mine" / "prompts.json").read_bytes())] == [None]

    def test_an_export_that_breaks_off_leaves_nothing(self, tmp_path: Path) -> None:
        def files() -> Iterator[ExportFile]:
            yield "a/b.txt", b"secret"
            assert (tmp_path / "mine.partial" / "a" / "b.txt").exists()
            raise Locked("locked meanwhile")

        with pytest.raises(Locked):
            write_folder(tmp_path / "mine", files(), 0)
        assert list(tmp_path.iterdir()) == []

    def test_a_locked_wearable_asks_for_the_passphrase(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "wearable")
        asked = ["wearer", "new", "P07", "--dir", folder]
        assert CliRunner().invoke(app, asked, input="correct horse\n").exit_code == 0
        asked = ["export", "--out", str(tmp_path / "mine"), "--dir", folder]
        assert CliRunner().invoke(app, asked, input="battery staple\n").exit_code == ExitCode.LOCKED
        assert not (tmp_path / "mine").exists()
        assert CliRunner().invoke(app, asked, input="correct horse\n").exit_code == 0
        assert json.loads((tmp_path / "mine" / "sessions.json").read_bytes()) == []


class TestPlace:
    def test_only_a_new_name_beside_the_wearables_folder_with_room_will_do(self, tmp_path: Path) -> None:
        own, medium = tmp_path / "wearable", tmp_path / "stick"
        own.mkdir(), medium.mkdir()
        (medium / "link").symlink_to(own)
        check_place(medium / "mine", own, 1000)
        for wrong in (own / "mine", medium / "link" / "mine", own / ".." / "wearable" / "recordings"):
            with pytest.raises(SettingsError, match="own folder"):
                check_place(wrong, own, 1000)
        with pytest.raises(OutputExists):
            check_place(medium, own, 1000)
        with pytest.raises(OutputExists):
            check_place(medium / "link", own, 1000)
        with pytest.raises(DataMissing, match="medium"):
            check_place(tmp_path / "nowhere" / "mine", own, 1000)
        with pytest.raises(DiskFull, match="are free"):
            check_place(medium / "mine", own, 1 << 60)
        (medium / "mine.partial").mkdir()
        with pytest.raises(OutputExists, match="broken off"):
            write_folder(medium / "mine", [], 0)

    def test_a_stick_that_takes_no_large_file_is_named(self) -> None:
        check_file("vfat", 4 * 10**9), check_file("exfat", 5 * 10**9)
        with pytest.raises(SettingsError, match="exFAT"):
            check_file("vfat", 5 * 10**9)

    def test_other_machines_are_told_from_media(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(
            "/dev/mmcblk0p1 / ext4 rw 0 0\nnas:/home /mnt/nas nfs4 rw 0 0\n/dev/sda1 /media/my\\040stick vfat rw 0 0\n"
            "me@there: /home/me/there fuse.sshfs rw 0 0\n"
        )
        kinds = {
            place: filesystem(Path(place), mounts)
            for place in ("/home/me/x", "/mnt/nas/a/b", "/media/my stick/mine", "/home/me/there/x")
        }
        assert list(kinds.values()) == ["ext4", "nfs4", "vfat", "fuse.sshfs"]
        assert [is_remote(kind) for kind in kinds.values()] == [False, True, False, True]
