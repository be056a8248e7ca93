"""A whole run with a model, a rule, a reader and a representation of one's own, from Python."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from own_clips import write_clips

from mcoe_model.errors import NotResumable, SettingsError
from mcoe_model.files import read_json
from mcoe_model.model_file import read_card
from mcoe_model.names import EMOTIONS
from simulations.api import Experiment, Tables

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {
    "model": "small_network.py:SmallConfig",
    "rule": "geometric_median.py:GeometricMedian",
    "data-reader": "npz_clips.py:NpzClips",
    "representation": "newest_polarity.py:NewestPolarity",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The settings of a run of seconds. Its code is a copy, which a test may change."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(EXAMPLES, folder / "code")
    own = {kind.replace("-", "_"): f"{folder / 'code'}/{code}" for kind, code in OWN.items()}
    sizes = {"size": 16, "rounds": 2, "base_epochs": 1, "folds": 3, "workers": 1, "baselines": "off"}
    return {"data": str(write_clips(folder / "clips"))} | own | sizes


@pytest.fixture(scope="module")
def tables(settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCOE_CACHE", str(folder / "cache"))
        return Experiment(settings, folder / "out").run()


def test_tables_are_tidy(tables: Tables) -> None:
    assert [row["arm"] for row in tables.arms] == ["base", "federated"]
    assert [(row["round"], row["state"]) for row in tables.rounds] == [(1, "published"), (2, "published")]
    assert len(tables.replies) == 2 * tables.rounds[0]["cohort"] and all(row["accepted"] for row in tables.replies)
    assert len(tables.clips) == 2 * tables.summary["clips"]["test"]
    for rows in (tables.arms, tables.rounds, tables.replies, tables.clips):
        assert len({tuple(row) for row in rows}) == 1, "every row has the same columns"
        assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    for row in tables.clips:
        assert sum(row[f"said_{emotion}"] for emotion in EMOTIONS) == pytest.approx(1)
        assert row["recognised"] == row[f"said_{row['emotion']}"]
    base = [row for row in tables.clips if row["arm"] == "base"]
    assert sum(row["recognised"] for row in base) / len(base) == pytest.approx(tables.arms[0]["war"])


def test_the_run_says_whose_code_it_was(tables: Tables, settings: dict[str, object]) -> None:
    said = read_json(tables.folder / "run.json")["own"]
    assert set(said) == set(OWN)
    for kind, code in OWN.items():
        file = Path(str(settings[kind.replace("-", "_")])).parent / code.partition(":")[0]
        assert (said[kind]["file"], said[kind]["sha256"]) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    generation = read_card(tables.folder / "model.safetensors").generation
    assert generation.preset == f"SmallConfig-{said['model']['sha256'][:12]}"
    assert generation.representation == f"NewestPolarity-{said['representation']['sha256'][:12]}"


def test_a_finished_run_is_read_again(tables: Tables, settings: dict[str, object]) -> None:
    assert Experiment(settings, tables.folder).run() == tables
    with pytest.raises(NotResumable, match="other settings"):
        Experiment(settings | {"rounds": 3}, tables.folder).run()


def test_code_that_has_changed_is_refused(tables: Tables, settings: dict[str, object], tmp_path: Path) -> None:
    begun = shutil.copytree(tables.folder, tmp_path / "run")
    (begun / "report.html").unlink()
    file = Path(str(settings["rule"]).rpartition(":")[0])
    content = file.read_text()
    file.write_text(content + "\n")
    try:
        with pytest.raises(NotResumable, match=r"geometric_median.py, the rule of this run, has changed"):
            Experiment(settings, begun).run()
    finally:
        file.write_text(content)


def test_every_fault_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"rounds": 0, "rule": "best", "representation": "film", "data_reader": "nowhere.py"}
    with pytest.raises(SettingsError) as told:
        Experiment(wrong, tmp_path / "out").run()
    assert len(told.value.faults) == 5 and not (tmp_path / "out").exists()
