"""The comparison's command: one base, variants beside each other, one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcoe_model.errors import OutputExists
from mcoe_model.files import read_json
from simulations.compare_methods import METHODS, REFERENCE, main
from simulations.settings import SimulationSettings

SMALL = ["--subjects", "12", "--sequences", "4", "--base-epochs", "1", "--rounds", "1", "--workers", "1"]


def test_every_method_changes_settings_that_there_are_and_that_fit_together() -> None:
    for changed in METHODS.values():
        SimulationSettings(train="head", **changed)
    assert METHODS[REFERENCE] == {}


def test_methods_are_run_from_one_base_and_compared_on_the_same_clips(
    simulation_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    main([*SMALL, "--out", str(tmp_path / "study"), "--methods", "clients iid", "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == read_json(tmp_path / "study" / "summary.json")
    assert [row["method"] for row in summary["methods"]] == ["base", "upper line", REFERENCE, "clients iid"]
    assert summary["exploratory"] and isinstance(summary["informative"], bool)
    bases = {(tmp_path / "study" / "seed-0" / one / "arms" / "base.safetensors").read_bytes()
             for one in ("base", "weighted-mean", "clients-iid")}  # fmt: skip
    assert len(bases) == 1
    assert (tmp_path / "study" / "methods.md").read_text().count("\n") == 6
    with pytest.raises(OutputExists, match="--resume"):
        main([*SMALL, "--out", str(tmp_path / "study")])
    main(["--resume", str(tmp_path / "study"), "--json"])  # all of it is there: nothing is trained again
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
