"""`mcoe-server`'s commands, on a data folder without running processes. Running ones are in tests/integration."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import segno
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image
from toy_fleet import CARD, expectation, honest_reply, toy_model
from typer.core import TyperOption
from typer.testing import CliRunner

from mcoe_model.errors import ExitCode
from mcoe_model.health import Health
from mcoe_model.invitation import Invitation
from mcoe_model.model_file import file_sha256, write_model
from mcoe_model.protocol import CheckIn
from mcoe_model.signed_request import public_pem
from server import certificates as server_certificates
from server.acceptance import Rejected, judge
from server.certificates import fingerprint, names_of, read_certificate
from server.cli import app
from server.cli.common import opened
from server.lock import hold
from server.paths import ServerPaths
from server.registry import Registry, Transfer, utc_now
from server.registry.database import open_database, sqlite_url
from server.settings_file import load_settings, write_running


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


def test_init_for_sleeping_wearables_lets_the_first_replies_close_a_round(tmp_path: Path) -> None:
    made = Folder(tmp_path / "fleet")
    made.run("init", "--sleeping")
    settings = load_settings(ServerPaths(made.path), {})
    assert settings.check_in_s == 3600.0 and settings.deadline_s == 7 * 86_400
    assert settings.round_settings.first_k == settings.min_clients == 2


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


def test_start_says_what_a_rule_needs(folder: Folder) -> None:
    assert "trusted_set" in folder.run("start", "--rule", "fltrust", code=ExitCode.USAGE)


def test_status_names_the_rule_of_private_rounds(folder: Folder) -> None:
    with (folder.path / "mcoe-server.toml").open("a") as settings:
        settings.write("private = true\n")
    assert folder.ask("status")["rule"] == "private-mean"
    assert "rule     private-mean" in folder.run("status")


def test_an_invitation_names_this_servers_authority(empty: Folder) -> None:
    line = empty.run("clients", "invite", "w1", "--address", "fleet.example.org:8443").strip()
    invitation = Invitation.from_line(line)
    authority = read_certificate(empty.path / "certificates" / "ca.crt")
    assert (invitation.client_id, invitation.address) == ("w1", "fleet.example.org:8443")
    assert invitation.fingerprint == fingerprint(authority)
    listed = empty.ask("clients", "list")
    assert [(client["id"], client["state"]) for client in listed] == [("w1", "invited")]
    assert invitation.token not in json.dumps(listed)


def test_a_server_that_listens_everywhere_invites_to_a_name_of_its_certificate(tmp_path: Path) -> None:
    def invited(server: Folder, *flags: str) -> str:
        return Invitation.from_line(server.run("clients", "invite", *flags)).address

    named, bound, nameless = (Folder(tmp_path / name) for name in ("named", "bound", "nameless"))
    named.run("init", "--host", "0.0.0.0", "--name", "fleet.example.org", "--port", "9443")
    assert invited(named) == "fleet.example.org:9443"
    assert invited(named, "--address", "Fleet.Example.org:443") == "Fleet.Example.org:443"
    bound.run("init", "--host", "10.0.0.9")
    assert invited(bound) == "10.0.0.9:8443"
    nameless.run("init", "--host", "0.0.0.0")
    assert "certificates renew --name" in nameless.run("clients", "invite", code=ExitCode.USAGE)
    nameless.run("certificates", "renew", "--name", "fd00::5")
    assert invited(nameless) == "[fd00::5]:8443"


def test_nobody_is_invited_to_an_address_that_wearables_would_refuse(empty: Folder) -> None:
    said = empty.run("clients", "invite", "--address", "other.example.org:8443", code=ExitCode.USAGE)
    assert "certificates renew --name other.example.org" in said and empty.ask("clients", "list") == []


def test_many_invitations_are_handed_out_as_files_and_pictures(empty: Folder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = empty.ask("clients", "invite", "--count", 3, "--expires", "7d", "--out", out, "--address", "10.0.0.5:8443")
    rows = {row["id"]: row for row in empty.ask("clients", "list")}
    assert len(made) == 3 and {one["client_id"] for one in made} == set(rows)
    assert {path.name for path in out.iterdir()} == {f"{name}.{kind}" for name in rows for kind in ("txt", "png")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    for one in made:
        line = Path(one["file"]).read_text()
        assert Invitation.from_line(line).client_id == one["client_id"] and line == f"{one['invitation']}\n"
        with Image.open(one["picture"]) as picture:
            drawn = np.asarray(picture.convert("L"))[4::8, 4::8] == 0  # one element for each square
        expected = segno.make(one["invitation"], micro=False, error="m")
        assert drawn.tolist() == [[bool(square) for square in row] for row in expected.matrix_iter(border=4)]
    expires = {datetime.datetime.fromisoformat(row["token_expires"]) - utc_now() for row in rows.values()}
    assert all(datetime.timedelta(days=6, hours=23) < left <= datetime.timedelta(days=7) for left in expires)


def test_lines_alone_are_printed_and_each_has_a_pseudonym_of_its_own(empty: Folder) -> None:
    lines = empty.run("clients", "invite", "--count", 2, "--address", "10.0.0.5:8443").splitlines()
    read = [Invitation.from_line(line) for line in lines]
    assert {one.client_id for one in read} == {row["id"] for row in empty.ask("clients", "list")}
    assert len({one.token for one in read}) == len({one.client_id for one in read}) == 2


@pytest.mark.parametrize("name", ["w1.txt", "w1.png"])
def test_an_invitation_that_lies_there_is_not_overwritten(empty: Folder, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")
    arguments = ("clients", "invite", "w1", "--address", "10.0.0.5:8443", "--out", tmp_path)
    assert "nobody was invited" in empty.run(*arguments, code=ExitCode.OUTPUT_EXISTS)
    assert (tmp_path / name).read_text() == "before" and empty.ask("clients", "list") == []


@pytest.mark.parametrize("expires", ["0d", "7", "d", "-1d", "1w", "91d", "2161h", "7d "])
def test_a_time_that_no_invitation_can_have_is_refused(empty: Folder, expires: str) -> None:
    said = empty.run("clients", "invite", "--expires", expires, code=ExitCode.USAGE)
    assert "7d or 12h" in said and empty.ask("clients", "list") == []


def test_a_name_is_for_one_invitation(empty: Folder) -> None:
    assert "--count" in empty.run("clients", "invite", "w1", "--count", 2, code=ExitCode.USAGE)


def test_a_key_is_added_renamed_and_revoked(folder: Folder, tmp_path: Path) -> None:
    key = tmp_path / "node.pub"
    key.write_text(public_pem(ec.generate_private_key(ec.SECP384R1())))
    folder.run("clients", "add", "w1", key)
    folder.run("clients", "rename", "w1", "the blue one")
    client = folder.ask("clients", "list")[0]
    assert (client["state"], client["alias"], client["public_key"]) == ("enrolled", "the blue one", key.read_text())
    folder.run("clients", "revoke", "w1")
    assert folder.ask("clients", "list")[0]["state"] == "revoked"
    said = folder.ask("clients", "revoke", "w1", "--lost")
    assert said["state"] == folder.ask("clients", "list")[0]["state"] == "lost"
    assert [event["kind"] for event in folder.ask("audit", "--client", "w1")][:2] == ["client lost", "client revoked"]
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


def test_a_model_that_sees_events_in_another_way_is_refused(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "voxels.safetensors"
    write_model(file, toy_model(), replace(CARD, generation=replace(CARD.generation, representation="voxel-grid")))
    for flags in ((), ("--new-generation",)):
        said = folder.run("models", "import", file, *flags, code=ExitCode.MODEL_INVALID)
        assert "sees events as voxel-grid" in said
    assert len(folder.ask("models", "list")) == 1


def test_a_model_of_another_generation_needs_the_flag(folder: Folder, tmp_path: Path) -> None:
    file, same = tmp_path / "other.safetensors", tmp_path / "same.safetensors"
    generation = replace(CARD.generation, input_size=16)
    write_model(file, toy_model(), replace(CARD, generation=generation))
    write_model(same, toy_model(seed=1), CARD)
    registry = Registry(open_database(sqlite_url(folder.path / "registry.sqlite")), "fleet")
    for client, examples in (("w1", 10), ("w2", 5), ("w3", 0), ("w4", 7)):
        registry.saw(CheckIn(client, examples))
    for client, minutes in (("w1", 12), ("w2", 0), ("w4", 7)):
        registry.note_health(client, Health(minutes=minutes))
    registry.revoke("w4")
    row = registry.open_round(str(registry.newest_model()), ["w1", "w2"], {}, None)
    said = folder.run("models", "import", file, code=ExitCode.MODEL_INVALID)
    assert "--new-generation" in said and "2 enrolled wearables hold clips, 15 together" in said
    assert "1 say that recordings are still there" in said
    assert "without --new-generation" in folder.run(
        "models", "import", same, "--new-generation", code=ExitCode.MODEL_INVALID
    )
    assert len(folder.ask("models", "list")) == 1
    made = folder.ask("models", "import", file, "--new-generation")
    assert (made["version"], made["new_generation"], made["wearables"], made["with_recordings"]) == (2, True, 2, 1)
    assert registry.newest_model() == file_sha256(file)
    ended = registry.round(row.id)
    assert (ended.state, ended.reason) == ("abandoned", "a model of another generation was released")
    [event] = folder.ask("audit", "--kind", "new generation")
    assert event["detail"] == f"version 2: {generation.id} after {CARD.generation.id}"
    registry.engine.dispose()


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


@pytest.mark.parametrize(
    ("days", "severity", "said"),
    [(-0.01, "error", "server.crt has ended"), (5.4, "warning", "server.crt ends in 5 days")],
)
def test_doctor_finds_a_certificate_that_ends_and_says_how_to_renew_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, severity: str, said: str
) -> None:
    made = Folder(tmp_path / "server")
    monkeypatch.setattr(server_certificates, "SERVER_DAYS", days)
    made.run("init")
    monkeypatch.undo()
    made.run("db", "upgrade")
    found = [finding for finding in _findings(made) if "server.crt" in finding["what"]]
    assert [(finding["severity"], finding["what"]) for finding in found] == [(severity, said)]
    made.run(*found[0]["mend"].split()[1:-2])
    assert not [finding for finding in _findings(made) if ".crt" in finding["what"]]


def test_doctor_finds_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    made = Folder(tmp_path / "server")
    made.run("init")
    made.run("db", "upgrade")
    (made.path / "certificates" / "server.crt").write_text("torn")
    (made.path / "certificates" / "ca.crt").unlink()
    assert len([finding for finding in _findings(made) if ".crt" in finding["what"]]) == 2


def _findings(made: Folder) -> list[dict[str, str]]:
    return list(json.loads(CliRunner().invoke(app, ["doctor", "--json", "--dir", str(made.path)]).stdout))


def test_doctor_finds_a_port_that_somebody_else_has_unless_the_server_runs(tmp_path: Path) -> None:
    made = Folder(tmp_path / "server")

    def taken_ports() -> list[dict[str, str]]:
        done = CliRunner().invoke(app, ["doctor", "--json", "--dir", str(made.path)])
        return [finding for finding in json.loads(done.stdout) if "cannot be had" in finding["what"]]

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        made.run("init", "--port", port)
        made.run("db", "upgrade")
        (finding,) = [finding for finding in taken_ports() if f"port {port} " in finding["what"]]
        assert finding["severity"] == "error" and "at 127.0.0.1" in finding["what"]
        assert f"sport = :{port}" in finding["mend"] and "mcoe-server.toml" in finding["mend"]
        with (made.path / "running.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert taken_ports() == []
    assert [finding for finding in taken_ports() if f"port {port} " in finding["what"]] == []


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


def learned_from(folder: Folder, *clients: str) -> Registry:
    """One published round of each client, after which a model descends from its update."""
    _, _, fleet = opened(folder.path)
    registry = fleet.registry
    for number, client in enumerate(clients):
        sha256 = f"{number:064x}"
        registry.saw(CheckIn(client, 10))
        base = str(registry.newest_model())
        row = registry.open_round(base, [client], {}, None)
        expected = expectation(cohort=frozenset([client]))
        verdict = judge(honest_reply(expected, client), expected)
        registry.record_reply(row.id, client, verdict, Transfer(1, 1))
        registry.publish_round(row.id, sha256, CARD.generation.id)
    return registry


@pytest.mark.parametrize(
    ("answers", "choice"), [("y\n", "rollback-before"), ("n\ny\n", "keep"), ("n\nn\n", None)]
)
def test_at_a_terminal_the_decision_is_asked_for(folder: Folder, answers: str, choice: str | None) -> None:
    registry = learned_from(folder, "w1")
    ours, theirs = os.openpty()
    os.write(ours, answers.encode())
    command = [sys.executable, "-c", "from server.cli import app; app()", "forget", "w1", "--dir", str(folder.path)]
    done = subprocess.run([*command, "--json"], stdin=theirs, capture_output=True, text=True, timeout=120)
    os.close(ours)
    os.close(theirs)
    assert "went into version 2; that cannot be taken out of them" in done.stderr
    if choice is None:
        assert done.returncode == ExitCode.DECISION_NEEDED and "nothing was deleted" in done.stderr
        assert [client.id for client in registry.clients()] == ["w1"]
    else:
        assert json.loads(done.stdout)["choice"] == choice
        assert registry.clients() == []


def test_what_was_done_can_be_read(folder: Folder) -> None:
    folder.run("clients", "invite", "w1")
    folder.run("clients", "invite", "w2")
    folder.run("clients", "revoke", "w1")
    kinds = [(event["kind"], event["client_id"]) for event in folder.ask("audit")]
    invited = [("client invited", "w2"), ("client invited", "w1")]
    assert kinds == [("client revoked", "w1"), *invited, ("model imported", None)]
    assert [event["kind"] for event in folder.ask("audit", "--client", "w1")] == ["client revoked", "client invited"]
    assert [event["client_id"] for event in folder.ask("audit", "--kind", "invited")] == ["w2", "w1"]
    assert [event["kind"] for event in folder.ask("audit", "--limit", 1)] == ["client revoked"]
    assert "model imported" in folder.run("audit")
    folder.run("forget", "w1")
    assert folder.ask("audit", "--client", "w1") == [] and "no such event" in folder.run("audit", "--client", "w1")


def test_one_client_is_shown_with_the_experts_that_it_used(folder: Folder) -> None:
    registry = learned_from(folder, "w1", "w2", "w1")
    shown = folder.ask("clients", "show", "w1")
    assert (shown["id"], shown["accepted"], set(shown["expert_use"])) == ("w1", 2, {"1", "3"})
    use = registry.expert_use("w1")[3]
    assert shown["expert_use"]["3"]["routed"] == list(use.routed)
    lines = folder.run("clients", "show", "w1").splitlines()
    row = next(line for line in lines if line.strip("│ ").startswith("3 "))
    assert [int(cell) for cell in row.replace("│", " ").split()] == [3, use.examples, *use.routed]
    assert "no client w3" in folder.run("clients", "show", "w3", code=ExitCode.DATA_MISSING)


def test_a_round_says_what_it_cost_and_why_a_client_was_rejected(folder: Folder) -> None:
    registry = learned_from(folder, "w1")
    for attempt in (1, 2):
        row = registry.open_round(str(registry.newest_model()), ["w1"], {}, None)
        registry.record_reply(row.id, "w1", Rejected(f"bad {attempt}"), Transfer(3_000_000, 200_000))
        registry.abandon_round(row.id, "too few")
    found = folder.ask("rounds", "show", 2, "--client", "w1")
    assert [(one["attempt"], one["reason"]) for one in found] == [(1, "bad 1"), (2, "bad 2")]
    assert "no reply of w1 was rejected" in folder.run("rounds", "show", 1, "--client", "w1")
    assert "no client w2" in folder.run("rounds", "show", 2, "--client", "w2", code=ExitCode.DATA_MISSING)
    assert folder.ask("rounds", "show", 2)["cost"]["bytes_down"] == 6_000_000
    assert "6.0 MB down, 0.4 MB up, open for 0 s, attempts: 2" in folder.run("rounds", "show", 2)


def test_models_that_learned_from_a_forgotten_client_need_a_decision(folder: Folder) -> None:
    _, _, fleet = opened(folder.path)
    first = str(fleet.registry.newest_model())
    registry = learned_from(folder, "w1", "w2")
    said = folder.run("forget", "w1", code=ExitCode.DECISION_NEEDED)
    assert "nothing was deleted" in said and "--rollback-before" in said and "--keep" in said
    assert "exclude each other" in folder.run("forget", "w1", "--keep", "--rollback-before", code=ExitCode.USAGE)
    assert {client["id"] for client in folder.ask("clients", "list")} == {"w1", "w2"}
    assert "kept as they are" in folder.run("forget", "w2", "--keep")
    receipt = folder.ask("forget", "w1", "--rollback-before")
    assert (receipt["choice"], receipt["released_again"]) == ("rollback-before", 4)
    assert registry.newest_model() == first
    assert len(list((folder.path / "receipts").iterdir())) == 2


def test_a_round_is_asked_for_and_status_says_why_none_is_open(folder: Folder) -> None:
    assert folder.ask("status")["no_round_because"] is None
    assert folder.ask("rounds", "open") == {"requested": True, "under_way": None}
    assert folder.ask("rounds", "open") == {"requested": False, "under_way": None}
    assert folder.ask("status")["round_requested"]
    registry = Registry(open_database(sqlite_url(folder.path / "registry.sqlite")), "fleet")
    registry.say_waiting("1 clients with new clips are there, 2 are needed")
    assert "open     none: 1 clients with new clips are there, 2 are needed (since" in folder.run("status")
    registry.saw(CheckIn("w1", 5))
    registry.open_round(str(registry.newest_model()), ("w1",), {}, None)
    found = folder.ask("status")
    assert (found["no_round_because"], found["round_requested"], found["waiting_for"]) == (None, False, ["w1"])
    assert "after round 1" in folder.run("rounds", "open")
    registry.engine.dispose()


def test_status_names_processes_that_do_not_run_though_the_server_does(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as superlink:
        port = superlink.getsockname()[1]
        made = Folder(tmp_path / "server")
        made.run("init", "--port", port - 1)
        paths = ServerPaths(made.path)
        assert (made.ask("status")["running"], made.ask("status")["down"]) == (False, [])
        with closing(hold(paths.running_lock, "")):
            write_running(paths, [replace(load_settings(paths, {}), dashboard_port=0)])
            said = made.ask("status")
            assert (said["running"], said["down"]) == (True, ["coordinator"])
            assert f"down     coordinator, which starts or cannot start; see {paths.logs}" in made.run("status")
            with closing(hold(paths.at_work("fleet"), "")):
                assert made.ask("status")["down"] == []
            superlink.close()
            assert made.ask("status")["down"] == ["superlink", "coordinator"]
    assert not made.ask("status")["running"]


def test_rounds_that_do_not_exist_are_named(folder: Folder) -> None:
    assert folder.ask("rounds", "list") == []
    for command in ("show", "replay"):
        assert "rounds list" in folder.run("rounds", command, 3, code=ExitCode.DATA_MISSING)


def commands(group: click.Group, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of `mcoe-server` that is no group, by the words that call it."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*name, word))
        else:
            yield (*name, word), command


COMMANDS = dict(commands(typer.main.get_group(app)))


def test_the_commands_are_all_found() -> None:
    groups = {"clients", "rounds", "models", "db", "certificates", "study"}
    assert {name[0] for name in COMMANDS if len(name) == 2} == groups
    assert {("start",), ("audit",), ("clients", "show"), ("models", "import")} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_can_print_json(name: tuple[str, ...]) -> None:
    command = COMMANDS[name]
    done = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0 and command.help
    assert " ".join(("Example:", "mcoe-server", *name)) in " ".join(done.output.split())
    options = {flag for parameter in command.params for flag in parameter.opts}
    of_a_server = {"--dir"} if name[0] != "study" else set()  # a study needs no server
    assert {"--json"} | of_a_server <= options
    assert all(parameter.help for parameter in command.params if isinstance(parameter, TyperOption))


def test_status_and_models_show_say_what_an_undecided_model_waits_for(folder: Folder, tmp_path: Path) -> None:
    assert folder.ask("status")["trial"] is None
    registry = Registry(open_database(sqlite_url(folder.path / "registry.sqlite")), "fleet")
    registry.saw(CheckIn("w1", 10))
    registry.import_model("c" * 64, "generation", "candidate")
    assert folder.ask("status")["trial"]["says"] == "it is to be examined"
    assert "canary" not in folder.run("status")
    registry.begin_canary(2, ("w1",), 0.1, 5, utc_now() + datetime.timedelta(hours=1))
    assert "0 of 5 check-ins, 0 refusals; awaited: w1" in folder.run("status")
    registry.saw(CheckIn("w1", 10, runs="c" * 64))
    trial = folder.ask("status")["trial"]
    assert (trial["version"], trial["state"], trial["check_ins"], trial["check_ins_needed"]) == (2, "canary", 1, 5)
    assert "offered to 1 clients (10 %), 1 run it; 1 of 5 check-ins, 0 refusals\n" in folder.run("status")
    folder.run("models", "hold", 2)
    assert folder.ask("status")["trial"] is None
    assert [row["state"] for row in folder.ask("models", "list")] == ["released", "held"]
    registry.set_model_state("c" * 64, "canary")
    folder.run("models", "rollback", 1)
    assert [row["state"] for row in folder.ask("models", "list")] == ["released", "held", "released"]
    registry.set_model_state("c" * 64, "canary")
    folder.run("models", "promote", 2)
    assert folder.ask("models", "list")[1]["state"] == "released"
    registry.engine.dispose()


def test_what_a_client_says_of_itself_is_shown_as_it_stands(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    registry = Registry(open_database(sqlite_url(folder.path / "registry.sqlite")), "fleet")
    registry.saw(CheckIn("w1", 10, client_version="[/b][red]1"))
    registry.engine.dispose()
    assert "[/b][red]1" in folder.run("clients", "list")


def test_clients_show_tells_how_a_wearable_is(folder: Folder) -> None:
    registry = Registry(open_database(sqlite_url(folder.path / "registry.sqlite")), "fleet")
    registry.saw(CheckIn("w1", 10))
    assert folder.ask("clients", "show", "w1")["health"] is None
    assert "look at        nothing" in folder.run("clients", "show", "w1")
    registry.note_health("w1", Health(version="0.2", free_gb=1, clock_set=0, minutes=12))
    shown = folder.ask("clients", "show", "w1")
    assert shown["attention"] == ["disk nearly full: 1 GB free", "clock not set"]
    assert (shown["health"]["free_gb"], shown["health"]["celsius"]) == (1, -1)
    assert [row["health"] for row in folder.ask("clients", "list")] == [shown["health"]]
    said = folder.run("clients", "show", "w1")
    assert "look at        disk nearly full: 1 GB free; clock not set" in said
    day = datetime.date(1970, 1, 1) + datetime.timedelta(days=shown["health_day"])
    assert f"health         version 0.2, free_gb 1, clock_set 0, minutes 12 (said on {day})" in said
    registry.engine.dispose()


def test_a_fault_of_the_program_prints_no_values_of_variables() -> None:
    code = (
        "import sys, server.cli.main as main\n"
        "def broken():\n    token = 'private'\n    raise RuntimeError('fault')\n"
        "main.app.command('break')(broken)\nsys.argv = ['mcoe-server', 'break']\nmain.app()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "RuntimeError: fault" in done.stderr
    assert "'private'" not in done.stderr
