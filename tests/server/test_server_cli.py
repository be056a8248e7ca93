"""`mcoe-server`'s commands, on a data folder without running processes. Running ones are in tests/integration."""

from __future__ import annotations

import fcntl
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from toy_fleet import CARD, toy_model
from typer.testing import CliRunner

from mcoe_model.errors import ExitCode
from mcoe_model.invitation import Invitation
from mcoe_model.model_file import file_sha256, write_model
from mcoe_model.signed_request import public_pem
from server.certificates import fingerprint, names_of, read_certificate
from server.cli import app


class Folder:
    """A data folder and its commands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: object, code: int = ExitCode.OK) -> str:
        """A command's output, or its error's line."""
        done = CliRunner().invoke(app, [*map(str, arguments), "--dir", str(self.path)])
        assert done.exit_code == code, done.output
        if code == ExitCode.OK:
            return done.stdout
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr

    def ask(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "server")
    made.run("init", "--name", "fleet.example.org", "--name", "10.0.0.5")
    return made


@pytest.fixture
def folder(empty: Folder, tmp_path: Path) -> Folder:
    write_model(tmp_path / "first.safetensors", toy_model(), CARD)
    empty.run("models", "import", tmp_path / "first.safetensors")
    return empty


def test_init_makes_keys_that_only_the_owner_reads_and_refuses_to_overwrite(empty: Folder) -> None:
    for name in ("certificates/ca.key", "certificates/server.key", "superexec.secret"):
        assert stat.S_IMODE((empty.path / name).stat().st_mode) == 0o600
    before = {path: path.read_bytes() for path in empty.path.rglob("*") if path.is_file()}
    assert "nothing was changed" in empty.run("init", code=ExitCode.OUTPUT_EXISTS)
    assert {path: path.read_bytes() for path in empty.path.rglob("*") if path.is_file()} == before


def test_a_folder_that_init_did_not_make_is_named(tmp_path: Path) -> None:
    for command in (["status"], ["clients", "list"], ["doctor"], ["start"]):
        assert "mcoe-server init" in Folder(tmp_path / "none").run(*command, code=ExitCode.DATA_MISSING)


def test_start_without_a_model_says_how_to_make_one(empty: Folder) -> None:
    assert "models import" in empty.run("start", code=ExitCode.DATA_MISSING)


def test_a_folder_that_another_server_uses_is_not_started_on(folder: Folder) -> None:
    with (folder.path / "running.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "runs on" in folder.run("start", code=ExitCode.SERVER_RUNS)


def test_start_names_every_wrong_setting(folder: Folder) -> None:
    said = folder.run("start", "--rule", "loudest", "--deadline-s", "-1", "--cohort", "some", code=ExitCode.USAGE)
    assert all(name in said for name in ("rule", "deadline_s", "cohort"))


def test_an_invitation_names_this_servers_authority(empty: Folder) -> None:
    line = empty.run("clients", "invite", "w1", "--address", "fleet.example.org:8443").strip()
    invitation = Invitation.from_line(line)
    authority = read_certificate(empty.path / "certificates" / "ca.crt")
    assert (invitation.client_id, invitation.address) == ("w1", "fleet.example.org:8443")
    assert invitation.fingerprint == fingerprint(authority)
    listed = empty.ask("clients", "list")
    assert [(client["id"], client["state"]) for client in listed] == [("w1", "invited")]
    assert invitation.token not in json.dumps(listed)


def test_a_key_is_added_renamed_and_revoked(folder: Folder, tmp_path: Path) -> None:
    key = tmp_path / "node.pub"
    key.write_text(public_pem(ec.generate_private_key(ec.SECP384R1())))
    folder.run("clients", "add", "w1", key)
    folder.run("clients", "rename", "w1", "the blue one")
    client = folder.ask("clients", "list")[0]
    assert (client["state"], client["alias"], client["public_key"]) == ("enrolled", "the blue one", key.read_text())
    folder.run("clients", "revoke", "w1")
    assert folder.ask("clients", "list")[0]["state"] == "revoked"
    assert "no client w2" in folder.run("clients", "revoke", "w2", code=ExitCode.DATA_MISSING)
    key.write_text("ssh-rsa AAAA")
    assert "key" in folder.run("clients", "add", "w3", key, code=ExitCode.FAILED)


def test_models_are_imported_shown_exported_held_promoted_and_rolled_back(folder: Folder, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    write_model(second, toy_model(seed=1), CARD)
    assert folder.ask("models", "import", second)["version"] == 2
    assert folder.ask("status")["model"] == file_sha256(second)
    folder.run("models", "hold", 2)
    assert folder.ask("status")["model"] == file_sha256(tmp_path / "first.safetensors")
    assert "only released" in folder.run("models", "hold", 1, code=ExitCode.MODEL_INVALID)
    folder.run("models", "promote", 2)
    rolled = folder.ask("models", "rollback", 1)
    assert (rolled["version"], rolled["same_as"]) == (3, 1)
    assert [model["state"] for model in folder.ask("models", "list")] == ["released"] * 3
    folder.run("models", "export", 3, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    folder.run("models", "export", 3, tmp_path / "out.safetensors", code=ExitCode.OUTPUT_EXISTS)
    shown = folder.ask("models", "show", 2)
    assert shown["sha256"] == file_sha256(second) and shown["shaped_by"] == {}
    folder.run("models", "show", 9, code=ExitCode.DATA_MISSING)


def test_a_model_of_another_generation_is_refused(folder: Folder, tmp_path: Path) -> None:
    from dataclasses import replace

    other = replace(CARD, generation=replace(CARD.generation, input_size=16))
    write_model(tmp_path / "other.safetensors", toy_model(), other)
    assert "generation" in folder.run("models", "import", tmp_path / "other.safetensors", code=ExitCode.MODEL_INVALID)


def test_doctor_finds_a_damaged_model_and_says_how_to_mend_it(folder: Folder) -> None:
    assert {finding["severity"] for finding in folder.ask("doctor")} <= {"note"}
    artifact = next((folder.path / "models").glob("*.safetensors"))
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    done = CliRunner().invoke(app, ["doctor", "--json", "--dir", str(folder.path)])
    assert done.exit_code == 1
    broken = [finding for finding in json.loads(done.stdout) if finding["severity"] == "error"]
    assert len(broken) == 1 and "damaged" in broken[0]["what"] and "backup" in broken[0]["mend"]


def test_a_backup_is_restored_into_a_new_server(folder: Folder, tmp_path: Path) -> None:
    folder.run("clients", "invite", "w1")
    folder.run("backup", tmp_path / "copy")
    folder.run("backup", tmp_path / "copy", code=ExitCode.OUTPUT_EXISTS)
    new = Folder(tmp_path / "new")
    new.run("init")
    new.run("restore", tmp_path / "copy")
    assert new.ask("models", "list")[0]["sha256"] == folder.ask("models", "list")[0]["sha256"]
    assert [client["id"] for client in new.ask("clients", "list")] == ["w1"]


def test_the_certificate_is_renewed_by_the_same_authority(folder: Folder) -> None:
    certificates = folder.path / "certificates"
    before = {name: (certificates / name).read_bytes() for name in ("ca.crt", "ca.key", "server.crt")}
    assert folder.ask("certificates", "renew", "--name", "new.example.org")["days"] == 365
    assert (certificates / "ca.crt").read_bytes() == before["ca.crt"]
    assert (certificates / "server.crt").read_bytes() != before["server.crt"]
    names = set(names_of(read_certificate(certificates / "server.crt")))
    assert names == {"new.example.org", "fleet.example.org", "10.0.0.5", "localhost", "127.0.0.1"}


def test_the_database_is_brought_to_the_newest_schema(folder: Folder) -> None:
    said = folder.ask("db", "upgrade")
    assert said["was"] == said["schema"]


def test_a_forgotten_client_leaves_a_receipt(folder: Folder) -> None:
    folder.run("clients", "invite", "w1")
    receipt = folder.ask("forget", "w1")
    assert receipt["client_id"] == "w1" and receipt["deleted"]["clients"] == 1 and receipt["descendants"] == []
    assert folder.ask("clients", "list") == []
    assert "no client w1" in folder.run("forget", "w1", code=ExitCode.DATA_MISSING)


def test_rounds_that_do_not_exist_are_named(folder: Folder) -> None:
    assert folder.ask("rounds", "list") == []
    for command in ("show", "replay"):
        assert "rounds list" in folder.run("rounds", command, 3, code=ExitCode.DATA_MISSING)


@pytest.mark.parametrize("command", [[], ["clients"], ["rounds"], ["models"], ["start"], ["init"], ["doctor"]])
def test_every_command_has_help(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output
