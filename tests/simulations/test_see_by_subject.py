"""The simulation's command with the models that have neither experts nor features of single pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcoe_model.model_file import read_card
from simulations.see_by_subject import main

#: As few people and clips as there are parts for, as small as an eye can be drawn.
FEW = ("--subjects", "6", "--sequences", "3", "--size", "24", "--rounds", "1", "--base-epochs", "1", "--workers", "1")


@pytest.mark.parametrize("model", ["seen-e5-s2", "cmfnet"])
def test_a_fleet_learns_a_model_of_whole_windows_for_a_round(
    model: str,
    simulation_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    folder = tmp_path / "run"
    main(["--model", model, *FEW, "--passes", "1", "--baselines", "off", "--out", str(folder), "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["replies"] == {"accepted": summary["subjects"]["clients"], "rejected": 0}
    assert summary["bytes_up"] > 0 and set(summary["random_passes"]) == {"base", "federated"}
    assert (read_card(folder / "model.safetensors").generation.preset, summary["model"]) == (model, model)
    assert (folder / "report.html").exists()
