"""A study's data on their way: exported by wearers, opened with the study's key, and simulated by the command."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from typer.testing import CliRunner

from client.export.study import export_for_study
from mcoe_model.study import PRIVATE_FILE, StudyKey, make_study_key
from server.cli import app
from simulations.see_by_subject import main

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))  # the wearers lie beside the tests of the exports

from exported import Wearer

#: One to train a base model on, one to be a client, one for validation and one to be tested.
WEARERS = 4
FEW = ("--rounds", "1", "--base-epochs", "1", "--folds", "4", "--baselines", "off", "--workers", "1", "--size", "32")


def test_what_wearers_exported_is_simulated_as_see_is(tmp_path: Path) -> None:
    make_study_key(tmp_path)
    study, files = StudyKey.from_line((tmp_path / "study.pub").read_text()), []
    for number in range(WEARERS):
        wearer = Wearer(tmp_path / f"wearer-{number}", f"P{number}")
        session = wearer.record()
        for start_s, label in ((0.0, "happiness"), (0.49, "neutral")):
            wearer.label(session, start_s, start_s + 0.5, label)
        files.append(tmp_path / f"{number}.mcoe-study")
        export_for_study(wearer.store, wearer.key, study, "see", files[-1], wearer.folder)
        wearer.store.close()
    asked = ["study", "open", *map(str, files), "--key", str(tmp_path / PRIVATE_FILE), "--out", str(tmp_path / "see")]
    opened = CliRunner().invoke(app, asked)
    assert opened.exit_code == 0, opened.output
    said = io.StringIO()
    with redirect_stdout(said):  # here, since a process of its own would only load torch again
        main(["--data", str(tmp_path / "see"), "--out", str(tmp_path / "run"), "--json", *FEW])
    summary = json.loads(said.getvalue().splitlines()[-1])
    assert summary["subjects"] == {"base": 1, "clients": 1, "validation": 1, "test": 1}
    assert summary["clips"] == {"base": 2, "clients": 2, "validation": 2, "test": 2}
    assert summary["replies"] == {"accepted": 1, "rejected": 0}
