"""`mcoe-client`'s commands, on a folder where no wearable runs. Running ones are in tests/integration."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import typer
from session_times import record
from typer.core import TyperOption
from typer.testing import CliRunner

from client.cli import app
from client.consent_text import read_consent_text
from client.doctor import Finding
from client.enrolment import ClientPaths, make_key
from client.keys import make_keyfile, read_keyfile, unlock
from client.lesson_book import Clip, LessonBook, Result, ResultFile, clip_name
from client.only_one import only_one
from client.page.pairing import Pairing
from client.page.sticker import Invitation, sticker_png
from client.sessions import Label, Store
from client.settings import ClientSettings
from client.wearers import Wearers
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import ExitCode, Locked
from mcoe_model.learning.replay import Exemplar, ReplayMemory
from mcoe_model.model_file import Generation, ModelCard, write_model

MEMBERSHIP = 'address = "127.0.0.1:1"\nclient_id = "c1"\nclips = "/clips"\nsubject = "001"\n'


class Wearable:
    """A folder and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: object, code: int = ExitCode.OK, input: str | None = None) -> str:
        """A command's output, or its error's line."""
        done = CliRunner().invoke(app, [*map(str, arguments), "--dir", str(self.folder)], input=input)
        assert done.exit_code == code, done.output
        if code == ExitCode.OK:
            return done.stdout
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr

    def ask(self, *arguments: object, input: str | None = None) -> Any:
        return json.loads(self.run(*arguments, "--json", input=input))


@pytest.fixture
def new(tmp_path: Path) -> Wearable:
    return Wearable(tmp_path / "wearable")


@pytest.fixture
def worn(new: Wearable) -> Wearable:
    new.ask("wearer", "new", "P01", input="correct horse\n")
    return new


def commands(group: click.Group, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of `mcoe-client` that is no group, by the words that call it."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*name, word))
        else:
            yield (*name, word), command


COMMANDS = dict(commands(typer.main.get_group(app)))


def test_the_commands_are_all_found() -> None:
    assert COMMANDS.keys() >= {
        ("doctor",), ("page",), ("record",), ("label",), ("sessions", "list"), ("sessions", "show"), ("consent",),
        ("sessions", "delete"), ("wearer", "new"), ("forget",), ("unlock",), ("lock",), ("model", "import"), ("enrol",),
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_can_print_json(name: tuple[str, ...]) -> None:
    command = COMMANDS[name]
    done = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0 and command.help
    assert " ".join(("Example:", "mcoe-client", *name)) in " ".join(done.output.split())
    options = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--dir", "--json"} <= options
    assert all(parameter.help for parameter in command.params if isinstance(parameter, TyperOption))


def test_a_fault_of_the_program_prints_no_values_of_variables() -> None:
    code = (
        "import sys, client.cli.main as main\n"
        "def broken(folder):\n    pictures = 'private'\n    raise RuntimeError('fault')\n"
        "main.paths_of = broken\nsys.argv = ['mcoe-client', 'status']\nmain.app()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "RuntimeError: fault" in done.stderr
    assert "'private'" not in done.stderr


@pytest.mark.parametrize(
    "command", [("record", "--seconds", 1), ("label", 1, "fear"), ("sessions", "show", "a"), ("unlock",), ("lock",)]
)
def test_what_needs_a_running_wearable_says_so(worn: Wearable, command: tuple[object, ...]) -> None:
    assert "no wearable runs" in worn.run(*command, code=ExitCode.WEARABLE_DOWN, input="words\n")


@pytest.mark.parametrize("command", [("consent",), ("sessions", "list"), ("sessions", "delete", "a", "--yes")])
def test_what_needs_a_wearer_says_so(new: Wearable, command: tuple[object, ...]) -> None:
    assert "no wearer" in new.run(*command, code=ExitCode.DATA_MISSING)


def test_a_device_that_is_none_is_refused_before_anything_starts(new: Wearable) -> None:
    assert "device 'webcam' is not known" in new.run("--device", "webcam", code=ExitCode.USAGE)
    assert not new.folder.exists()


def test_a_wearers_key_needs_the_passphrase_or_the_recovery_key_that_is_shown_once(new: Wearable) -> None:
    recovery = new.ask("wearer", "new", "P01", input="correct horse\n")["recovery_key"]
    path = Wearers(new.folder).paths.device_key
    assert unlock(path, recovery).secret == unlock(path, "correct horse").secret
    assert "8 characters" in Wearable(new.folder.parent / "b").run(
        "wearer", "new", "P01", code=ExitCode.DATA_INVALID, input="short\n"
    )
    assert Wearers(new.folder.parent / "b").current is None


def test_the_next_wearer_has_another_key_and_nothing_of_the_one_before(worn: Wearable) -> None:
    before = Wearers(worn.folder).paths
    (before.models).mkdir()
    (before.models / "a.safetensors").write_bytes(b"model")
    pairing = Pairing(worn.folder / "page")
    pairing.pair(pairing.code())
    said = worn.run("wearer", "new", "P02", code=ExitCode.DECISION_NEEDED)
    assert "export" in said and "unsent" not in said and before.device_key.exists()
    assert worn.ask("wearer", "new", "P02", "--keyfile", "--yes") == {"wearer": "P02", "recovery_key": None}
    assert Wearers(worn.folder).current == "P02" and not before.folder.exists() and pairing.phones() == 0
    worn.run("forget", code=ExitCode.DECISION_NEEDED)
    worn.run("forget", "--yes")
    assert Wearers(worn.folder).current is None


def test_what_waits_for_the_server_is_named_before_it_is_deleted_unsent(worn: Wearable) -> None:
    outbox = Wearers(worn.folder).paths.outbox
    outbox.mkdir()
    for update in ("a", "b"):
        (outbox / f"{update}.sealed").write_bytes(b"sealed")
    said = " ".join(worn.run("wearer", "new", "P02", code=ExitCode.DECISION_NEEDED).split())
    assert "deleted unsent: 2; to send them, let it check in first" in said and len([*outbox.iterdir()]) == 2
    said = " ".join(worn.run("forget", code=ExitCode.DECISION_NEEDED).split())
    assert "deleted unsent: 2." in said and "check in" not in said, "who is forgotten sends nothing before"
    worn.ask("wearer", "new", "P02", "--keyfile", "--yes")
    assert not outbox.exists()


@pytest.mark.parametrize("bad", [("P 2", "long enough\n"), ("P02", "abc\n")])
def test_nobody_is_erased_for_a_wearer_who_cannot_be_begun(worn: Wearable, bad: tuple[str, str]) -> None:
    before = Wearers(worn.folder).paths.device_key.read_bytes()
    worn.run("wearer", "new", bad[0], "--yes", code=ExitCode.DATA_INVALID, input=bad[1])
    assert Wearers(worn.folder).current == "P01" and Wearers(worn.folder).paths.device_key.read_bytes() == before


def enrolled(folder: Path) -> ClientPaths:
    """What `enrol` leaves in a wearable's folder before anybody was given a code."""
    folder.mkdir()
    paths = ClientPaths(folder)
    make_key(paths)
    paths.membership.write_text(MEMBERSHIP)
    return paths


def test_a_passphrase_is_changed_by_the_old_one_or_the_recovery_key(new: Wearable) -> None:
    new.run("wearer", "passphrase", code=ExitCode.DATA_MISSING)
    recovery = new.ask("wearer", "new", "P01", input="correct horse\n")["recovery_key"]
    path = Wearers(new.folder).paths.device_key
    key, before = unlock(path, "correct horse"), path.read_bytes()
    new.run("wearer", "passphrase", code=ExitCode.LOCKED, input="wrong horse\nbattery staple\n")
    assert "8 characters" in new.run("wearer", "passphrase", code=ExitCode.DATA_INVALID, input="correct horse\nshort\n")
    assert path.read_bytes() == before
    for old, passphrase in (("correct horse", "battery staple"), (recovery, "third of three")):
        assert new.ask("wearer", "passphrase", input=f"{old}\n{passphrase}\n") == {"changed": True}
        assert unlock(path, passphrase).secret == unlock(path, recovery).secret == key.secret
    with pytest.raises(Locked):
        unlock(path, "correct horse")
    bare = Wearable(new.folder.parent / "bare")
    bare.ask("wearer", "new", "P01", "--keyfile")
    assert "no passphrase" in bare.run("wearer", "passphrase", code=ExitCode.DATA_MISSING)


@pytest.mark.parametrize("keyfile", [True, False])
def test_with_a_session_goes_what_was_kept_of_it_to_learn_from(new: Wearable, tmp_path: Path, keyfile: bool) -> None:
    """Without the key, which a passphrase opens, the memory cannot be looked into."""
    new.ask("wearer", "new", "P01", *(["--keyfile"] if keyfile else []), input="correct horse\n")
    paths = Wearers(new.folder).paths
    key = read_keyfile(paths.device_key) if keyfile else unlock(paths.device_key, "correct horse")
    sessions = list[str]()
    with closing(Store(paths.store, paths.recordings, ClientSettings().rules(), key)) as store:
        store.answer_consents(dict.fromkeys(CONSENTS, True), read_consent_text(None, "en"))
        for _ in range(5):
            sessions.append(record(store, tmp_path / "memory", bytes(100)))
            store.label(store.add_span(sessions[-1], 0, 5_000_000).id, Label("fear"))
        clips = [clip_name(one.span, one.label_id) for one in store.to_learn().lessons]
    lessons = key.derive("lessons")
    book = LessonBook(paths.lessons, lessons, "0a" * 8)
    for name in clips:
        book.put(Clip(name, 2, 20_000, {("frame", "any"): np.ones((20, 8), np.float32)}))
    ends, logits = np.ones((4, 8), np.float16), np.ones(7, np.float32)
    kept = [Exemplar(name, 2, "unknown", 20_000, ends, logits) for name in clips]
    book.write_memory(ReplayMemory("0a" * 8).add(kept).to_bytes())
    ResultFile(paths.lessons, lessons).write(Result("0a" * 8, tuple(clips), "b" * 64, None, "held out", 0, 0.0))

    said = new.ask("sessions", "delete", sessions[0], "--yes")
    assert said == {"deleted": sessions[0], "remembered": not keyfile}
    assert book.encoded == {*clips[1:]} and not (paths.lessons / "result.sealed").exists()
    memory = ReplayMemory.from_bytes(book.read_memory() or b"", generation=None)
    assert memory.names == tuple(clips[1:] if keyfile else clips)
    assert "unlocked" in new.run("sessions", "delete", sessions[1], "--yes") or keyfile
    assert book.encoded == {*clips[2:]}


def test_one_who_enrolled_without_a_code_is_not_deleted_unasked(new: Wearable) -> None:
    paths = enrolled(new.folder)
    assert "--yes" in new.run("forget", code=ExitCode.DECISION_NEEDED)
    assert paths.key.exists() and paths.membership.exists()
    new.run("forget", "--yes")
    assert not paths.key.exists() and not Wearers(new.folder).worn


def test_a_member_without_a_camera_is_one_wearable_too(new: Wearable) -> None:
    paths = enrolled(new.folder)
    with only_one(new.folder):
        assert "runs on" in new.run("--device", "none", code=ExitCode.WEARABLE_RUNS)
        assert "runs on" in new.run("forget", "--yes", code=ExitCode.WEARABLE_RUNS)
    assert paths.key.exists()


def test_nothing_is_learned_for_a_wearer_who_has_not_agreed(worn: Wearable) -> None:
    paths = Wearers(worn.folder).paths
    paths.membership.write_text(MEMBERSHIP)
    alone = "--device", "none"
    assert "not agreed to learning" in worn.run(*alone, code=ExitCode.CONSENT_MISSING)
    worn.ask("consent", "--give", "learning", "--give", "updates")
    worn.ask("consent", "--withdraw", "updates")
    assert "not agreed to updates" in worn.run(*alone, code=ExitCode.CONSENT_MISSING)
    worn.ask("consent", "--give", "updates")
    command = [sys.executable, "-m", "client.cli.main", *alone, "--dir", str(worn.folder)]
    assert subprocess.run(command, capture_output=True).returncode == ExitCode.LOCKED, "the next thing that is missed"


def test_without_a_camera_labels_count_as_long_as_the_wearer_agrees(
    worn: Wearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = list[bool]()
    monkeypatch.setattr("client.fleet.run_fleet", lambda *_, labels: counted.append(labels))
    Wearers(worn.folder).paths.membership.write_text(MEMBERSHIP)
    worn.ask("consent", "--give", "labels", "--give", "learning", "--give", "updates")
    worn.run("--device", "none")
    worn.ask("consent", "--withdraw", "labels")
    worn.run("--device", "none")
    assert counted == [True, False]


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
@pytest.mark.parametrize("learned", [False, True])
def test_who_enrolled_before_the_first_visit_becomes_the_wearer(
    new: Wearable, passphrase: str | None, learned: bool
) -> None:
    before = enrolled(new.folder)
    secret, node = make_keyfile(before.device_key).secret if learned else None, before.key.read_bytes()
    before.models.mkdir()
    (before.models / "a.safetensors").write_bytes(b"model")
    options = ["--keyfile"] if passphrase is None else []
    said = new.ask("wearer", "new", "P01", *options, input=f"{passphrase}\n")
    paths = Wearers(new.folder).paths
    assert Wearers(new.folder).current == "P01" and paths.key.read_bytes() == node and paths.membership.exists()
    assert (paths.models / "a.safetensors").exists() and not before.key.exists() and not before.device_key.exists()
    key = read_keyfile(paths.device_key) if passphrase is None else unlock(paths.device_key, said["recovery_key"])
    assert secret in (None, key.secret), "what waits in the outbox can still be read"


def test_a_model_that_was_imported_before_the_first_visit_is_the_wearers(new: Wearable) -> None:
    models = ClientPaths(new.folder).models
    models.mkdir(parents=True)
    (models / "a.safetensors").write_bytes(b"model")
    new.ask("wearer", "new", "P01", "--keyfile")
    assert (Wearers(new.folder).paths.models / "a.safetensors").exists()


@pytest.mark.parametrize("command", [("status",), ("doctor",)])
def test_what_only_looks_erases_nobody(worn: Wearable, command: tuple[str, ...]) -> None:
    """A process that runs may be just about to."""
    there = Wearers(worn.folder).paths.folder
    (going := there.with_name(".closing-P00")).mkdir()
    (going / "device.key").write_text("key")
    CliRunner().invoke(app, [*command, "--dir", str(worn.folder)])
    assert (going / "device.key").read_text() == "key"
    with only_one(worn.folder):
        worn.run("model", "import", worn.folder / "none", code=ExitCode.DATA_MISSING)
        assert going.exists()
    worn.run("model", "import", worn.folder / "none", code=ExitCode.DATA_MISSING)
    assert not going.exists() and Wearers(worn.folder).current == "P01"


def test_what_was_made_for_learning_goes_with_the_consent_to_it_though_nothing_runs(worn: Wearable) -> None:
    lessons = worn.folder / "wearers" / "P01" / "lessons"
    worn.ask("consent", "--give", "learning", "--give", "labels")
    (lessons / "0a").mkdir(parents=True)
    worn.ask("consent", "--withdraw", "labels")
    assert lessons.exists()
    worn.ask("consent", "--withdraw", "learning")
    assert not lessons.exists()


def test_consents_are_given_and_withdrawn_each_by_itself(worn: Wearable) -> None:
    assert worn.ask("consent") == []
    given = worn.ask("consent", "--give", "capture", "--give", "labels", "--language", "de")
    assert {one["kind"]: one["given"] for one in given} == {"capture": True, "labels": True}
    assert {one["language"] for one in given} == {"de"}
    left = worn.ask("consent", "--withdraw", "capture")
    assert {one["kind"]: one["given"] for one in left} == {"capture": False, "labels": True}
    assert "labels    yes" in worn.run("consent") and "capture   no" in worn.run("consent")
    assert "not breathing" in worn.run("consent", "--give", "breathing", code=ExitCode.USAGE)
    assert worn.ask("consent", "--text")["text"] == read_consent_text(None, "en").text


def test_the_page_is_shown_with_a_code_and_put_on_a_sticker(new: Wearable, tmp_path: Path) -> None:
    first = new.ask("page", "--sticker", tmp_path / "sticker.png")
    assert first["address"].startswith("https://mcoe-") and first["phones"] == 0 and not first["running"]
    assert new.ask("page")["code"] == first["code"] and first["code"] in new.run("page")
    certificate = ssl.PEM_cert_to_DER_cert((new.folder / "page" / "page.crt").read_text())
    named = Invitation(first["name"], first["port"], hashlib.sha256(certificate).hexdigest(), first["code"])
    assert (tmp_path / "sticker.png").read_bytes() == sticker_png(named)


@pytest.mark.parametrize(("tls", "scheme"), [("false", "http"), ("true", "https")])
def test_a_page_for_this_machine_alone_is_at_localhost_and_on_no_sticker(new: Wearable, tls: str, scheme: str) -> None:
    new.folder.mkdir()
    (new.folder / "mcoe-client.toml").write_text(f'page_tls = {tls}\npage_host = "127.0.0.1"\n')
    told = new.ask("page")
    assert (told["address"], told["addresses"]) == (f"{scheme}://localhost:8443", [f"{scheme}://127.0.0.1:8443"])
    shown = new.run("page")
    assert "localhost:8443   (for this machine alone; the wearable does not run now)" in shown.splitlines()[0]
    assert "mcoe-" not in shown and "█" not in shown and ("SHA-256" in shown) == (tls == "true")
    sticker = new.folder.parent / "sticker.png"
    assert "would lead no phone to it" in new.run("page", "--sticker", sticker, "--unpair", code=ExitCode.USAGE)
    assert not sticker.exists() and new.ask("page")["code"] == told["code"]


def test_a_port_that_is_chosen_at_the_start_is_not_told_before(new: Wearable) -> None:
    new.folder.mkdir()
    (new.folder / "mcoe-client.toml").write_text("page_port = 0\n")
    told = new.ask("page")
    assert (told["address"], told["addresses"]) == (None, [])
    first, *others = new.run("page").splitlines()
    assert "at a port that is chosen at the start (page_port = 0)" in first and told["code"] in others[0]
    assert not any("://" in line or "█" in line for line in (first, *others))
    sticker = new.folder.parent / "sticker.png"
    assert "page_port = 0" in new.run("page", "--sticker", sticker, code=ExitCode.USAGE) and not sticker.exists()


def test_a_model_is_checked_before_it_recognises(worn: Wearable, tmp_path: Path) -> None:
    import numpy as np

    file = tmp_path / "model.safetensors"
    generation = Generation("mcoe-tiny", "0" * 64, 64, None)  # type: ignore[arg-type]
    write_model(file, {"a": np.zeros(3, np.float32)}, ModelCard(generation, "test"))
    worn.run("model", "import", tmp_path / "none", code=ExitCode.DATA_MISSING)
    (tmp_path / "torn").write_bytes(file.read_bytes()[:-1])
    worn.run("model", "import", tmp_path / "torn", code=ExitCode.MODEL_INVALID)


def test_doctor_names_what_is_wrong_and_what_to_do(worn: Wearable) -> None:
    done = CliRunner().invoke(app, ["doctor", "--dir", str(worn.folder), "--json"])
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert found.keys() >= {
        "camera", "udev rule", "disk", "quota", "tmpfs", "swap", "clock", "power mode", "platform", "model", "server",
        "key", "enrolled", "consent", "unlocked",
    }  # fmt: skip
    assert done.exit_code == ExitCode.FAILED and found["camera"]["state"] == "wrong"
    assert all(one["remedy"] for one in found.values() if one["state"] in ("wrong", "warning"))
    assert found["consent"]["state"] == "wrong" and found["key"]["state"] == "ok"
    worn.ask("consent", "--give", "capture")
    command = ["doctor", "--dir", str(worn.folder), "--device", "simulated"]
    plain = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert plain.exit_code == 0 and "WRONG" not in plain.stdout, plain.stdout


def test_doctor_shows_a_remedy_as_it_is_to_be_typed(worn: Wearable, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "pip install 'mcoe[capture]'"
    monkeypatch.setattr("client.doctor.examine", lambda premises: [Finding("camera", "wrong", "none", remedy)])
    shown = CliRunner().invoke(app, ["doctor", "--dir", str(worn.folder)], env={"COLUMNS": "120"}).stdout
    assert remedy in shown


def test_doctor_cuts_no_remedy_however_narrow_the_terminal_is(worn: Wearable, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = f"sudo cp /opt/{'very-long-folder/' * 8}65-inivation.rules /etc/udev/rules.d/"
    monkeypatch.setattr("client.doctor.examine", lambda premises: [Finding("udev rule", "wrong", "none", remedy)])
    shown = CliRunner().invoke(app, ["doctor", "--dir", str(worn.folder)], env={"COLUMNS": "80"}).stdout
    last = "".join(line.split("│")[-2].strip() for line in shown.splitlines() if line.count("│") > 4)
    assert remedy.replace(" ", "") in last.replace(" ", "")
