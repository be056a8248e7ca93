"""What a run knows before it trains: who is in which part, from a fold file too, and what it was made from."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mcoe_model.errors import DataInvalid, DataMissing, SettingsError
from mcoe_model.files import read_json
from mcoe_model.model_file import read_model, write_model
from simulations.arms import train_base
from simulations.console import Display
from simulations.experiment import begin_or_resume
from simulations.parts import Parts
from simulations.provenance import uncommitted_sha256
from simulations.scene import open_scene
from simulations.settings import SimulationSettings

SETTINGS = SimulationSettings(subjects=12, sequences=4, workers=1)


@pytest.fixture(autouse=True)
def cache(simulation_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))


def prepared(folder: Path, **changes: object) -> str:
    """Prepare a run of SETTINGS with these changes; returns what it said."""
    printed = io.StringIO()
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    begin_or_resume(settings, folder, Display(Console(file=printed, width=400)), resumed=False)
    return printed.getvalue()


def test_a_fold_file_of_one_run_divides_the_subjects_of_another(tmp_path: Path) -> None:
    prepared(tmp_path / "first", fold="1")
    prepared(tmp_path / "second", split=str(tmp_path / "first" / "fold.json"))
    prepared(tmp_path / "drawn")
    first, second, drawn = (Parts.read(tmp_path / name / "parts.json") for name in ("first", "second", "drawn"))
    assert first == second != drawn
    assert read_json(tmp_path / "second" / "fold.json") == read_json(tmp_path / "first" / "fold.json")


def test_decoded_pictures_that_have_changed_on_disk_are_not_learned(
    simulation_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path / "first")  # the synthetic data are there now
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "synthetic").symlink_to(simulation_cache / "synthetic")
    monkeypatch.setenv("MCOE_CACHE", str(cache))
    prepared(tmp_path / "second")
    [pictures] = (cache / "clips").glob("*.u8")
    with pictures.open("r+b") as file:
        file.seek(1000)
        changed = bytes([file.read(1)[0] ^ 1])
        file.seek(1000)
        file.write(changed)
    with pytest.raises(DataInvalid, match="has changed on disk"):
        prepared(tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_fold_file_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"none\.json"):
        prepared(tmp_path / "run", split=str(tmp_path / "none.json"))
    assert not (tmp_path / "run").exists()
    for changes in ({"fold": "all"}, {"protocol": "published"}):
        with pytest.raises(SettingsError, match="--split"):
            replace(SETTINGS, split="fold.json", **changes)  # type: ignore[arg-type]


def test_a_base_that_may_have_seen_the_test_people_is_said_to(tmp_path: Path) -> None:
    prepared(tmp_path / "first", base_epochs=1)
    train_base(tmp_path / "first")
    base = {"base": str(open_scene(tmp_path / "first").paths.base)}
    assert "may have seen" not in prepared(tmp_path / "same", **base)
    assert "trained with other test clips: it may have seen these" in prepared(tmp_path / "other", fold="1", **base)
    tensors, card = read_model(Path(base["base"]))
    write_model(tmp_path / "found.safetensors", tensors, replace(card, trained_on={}))
    assert "its card does not name" in prepared(tmp_path / "third", base=str(tmp_path / "found.safetensors"))


def test_the_published_split_says_whom_its_sides_share(tmp_path: Path) -> None:
    said = prepared(tmp_path / "run", protocol="published", sequences=2)
    overlap = read_json(tmp_path / "run" / "run.json")["subject_overlap"]
    assert overlap["subjects_untrained"] > 0
    assert f"{overlap['subjects_both']} of the {overlap['subjects_testing']} test subjects are in training too" in said
    assert f"{overlap['subjects_untrained']} test subjects have no training sequence" in said
    assert not (tmp_path / "run" / "fold.json").exists()


def test_changes_beyond_the_commit_are_named(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert uncommitted_sha256(tmp_path) is None
    git("init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    assert uncommitted_sha256(tmp_path) is None
    (tmp_path / "code.py").write_text("a = 2\n")
    changed = uncommitted_sha256(tmp_path)
    (tmp_path / "new.py").write_text("b = 1\n")
    one = uncommitted_sha256(tmp_path)
    (tmp_path / "new.py").write_text("b = 2\n")
    other = uncommitted_sha256(tmp_path)
    assert len({None, changed, one, other}) == 4
    git("add", ".")
    git("commit", "-m", "second")
    assert uncommitted_sha256(tmp_path) is None
