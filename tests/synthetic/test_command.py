"""The command that writes synthetic sets."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from mcoe_model.errors import ExitCode
from simulations.synthesise_see import app

FEW = ["--subjects", "2", "--sequences", "2", "--size", "32", "--workers", "1"]


def test_json_says_what_was_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "see"), *FEW, "--json", "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == ExitCode.OK, result.output
    summary = json.loads(result.stdout)
    assert (summary["subjects"], summary["sequences"], summary["training"]) == (2, 4, 3)
    assert summary["pictures"] == len(list((tmp_path / "see" / "frame").rglob("*.jpg")))
    assert set(summary["statistics"]["all"]) == set(summary["see"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > sheet.width > 500


def test_the_table_shows_sees_numbers(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "see"), *FEW])
    assert result.exit_code == ExitCode.OK, result.output
    assert "0.226" in result.stdout
    assert "says nothing about SEE" in result.stdout


def test_wrong_settings_are_one_line_with_all_faults(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "see"), "--size", "4", "--design", "studio"])
    assert result.exit_code == ExitCode.USAGE
    assert "size is 4" in result.stderr
    assert "studio" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "see").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, [str(tmp_path), *FEW])
    assert result.exit_code == ExitCode.OUTPUT_EXISTS


def test_help_lists_every_option_and_examples() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for option in ("subjects", "sequences", "design", "size", "difficulty", "seed", "workers", "sheet", "json"):
        assert f"--{option}" in shown
    assert "Examples" in shown
