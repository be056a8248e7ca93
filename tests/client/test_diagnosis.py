"""`mcoe-client diagnose`: tells what a helper needs, and nothing that a wearer, a camera or a disk named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exported import SERIAL, Wearer
from typer.testing import CliRunner

from client.cli import app
from client.enrolment import make_key
from client.leaving import Leaving
from client.sessions import Label
from mcoe_model.errors import ExitCode
from mcoe_model.names import EMOTIONS

#: Whatever somebody might have written somewhere.
PLANTED = ("Marianne", "Untermeier", "w-pseudonym", "surgery-study", SERIAL, "10.9.8.7", "wearer@example.org")


def diagnosed(folder: Path, out: Path) -> dict[str, Any]:
    """What is in the file, which is what was shown."""
    done = CliRunner().invoke(app, ["diagnose", "--out", str(out), "--dir", str(folder)])
    assert done.exit_code == ExitCode.OK, done.output
    assert json.loads(done.stdout) == json.loads(out.read_text())
    return dict(json.loads(out.read_text()))


def test_nothing_that_was_planted_is_told(tmp_path: Path) -> None:
    home = tmp_path / "Untermeier"
    home.mkdir()
    wearer = Wearer(home / "wearable", "Marianne")
    session = wearer.record()
    start = wearer.store.session(session).starts_us or 0
    wearer.store.label(wearer.store.add_span(session, start, start + 600_000).id, Label("surprise", 3))
    wearer.store.close()
    (home / "surgery-study.pub").write_text("key")
    (wearer.folder / "mcoe-client.toml").write_text(
        f'study_key = "{home / "surgery-study.pub"}"\npage_host = "10.9.8.7"\nquota_gb = 3.5\nlanguage = "de"\n'
    )
    make_key(wearer.paths)
    wearer.paths.authority.write_text("authority of wearer@example.org")
    wearer.paths.membership.write_text(
        'address = "10.9.8.7:1"\nclient_id = "w-pseudonym"\nclips = "/home/Untermeier"\nsubject = "Marianne"\n'
    )
    wearer.paths.outbox.mkdir()
    (wearer.paths.outbox / "w-pseudonym.sealed").write_bytes(b"sealed")
    Leaving(wearer.folder).queue(wearer.paths, "withdraw")
    found = diagnosed(wearer.folder, tmp_path / "bundle.json")
    text = (tmp_path / "bundle.json").read_text()
    assert [
        word for word in (*PLANTED, *EMOTIONS, session, str(tmp_path)) if word in text
    ] == []
    assert found["settings"] == {"language": "de", "page_host": "(set)", "study_key": "(set)", "quota_gb": 3.5}
    counts = found["counts"]
    assert {name: counts[name] for name in ("sessions", "labels", "outbox", "not_said_yet")} == {
        "sessions": 1, "labels": 1, "outbox": 1, "not_said_yet": 1,
    }  # fmt: skip
    assert counts["spans"] >= 1 and found["runs"] is False and found["last_exit_codes"] is None
    assert {"check": "enrolled", "state": "warning"} in found["doctor"] and found["versions"]["numpy"]


def test_what_is_broken_is_no_reason_to_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wearable"
    for code in ("A1", "A2"):
        (folder / "wearers" / code).mkdir(parents=True)
        (folder / "wearers" / code / "device.key").write_text("key")
    (folder / "mcoe-client.toml").write_text('owner = "Marianne"\n')
    found = diagnosed(folder, tmp_path / "bundle.json")
    assert found["settings"] == {"faults": 1} and "DataInvalid" in found["counts"]["fault"]
    assert any(one["state"] == "failed" for one in found["doctor"])
    assert "Marianne" not in (tmp_path / "bundle.json").read_text()
    arguments = ["diagnose", "--out", str(tmp_path / "bundle.json"), "--dir", str(folder)]
    assert CliRunner().invoke(app, arguments).exit_code == ExitCode.OUTPUT_EXISTS


def test_a_new_wearable_is_told_of_too(tmp_path: Path) -> None:
    assert diagnosed(tmp_path / "none", tmp_path / "bundle.json")["free_gb"] is None
