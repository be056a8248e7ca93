"""A declared grid: every run once, paired with the reference of its seed, and a page with the commands."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcoe_model.errors import ExitCode, SettingsError
from mcoe_model.learning.metrics import Difference
from simulations.study_grid import command_of, make_grid, read_grid, runs_of
from simulations.study_results import Row

_ROOT = Path(__file__).parents[2]
SMALL = {"subjects": 12, "sequences": 4, "rounds": 1, "base-epochs": 1, "size": 32}


def grid_of(**over: Any) -> dict[str, Any]:
    factor = {"says": "Rule", "values": [{"rule": "median"}, {"rule": "krum"}]}
    return {"name": "try", "seeds": [1, 2], "reference": dict(SMALL), "factor": [factor]} | over


def test_every_run_is_declared_once_and_shares_the_base_of_its_seed() -> None:
    whole = {"says": "Data", "values": [{"subjects": 14}], "changes": "base"}
    again = {"says": "Again", "values": [{"rule": "median"}]}
    grid = make_grid(grid_of(factor=[*grid_of()["factor"], whole, again]))
    runs = runs_of(grid)
    assert len(runs) == len({run.name for run in runs}) == 2 * (1 + 2 + 1)
    commands = {run.name: " ".join(command_of(grid, run, Path("runs/x"))) for run in runs}
    assert (
        "--seed 2 --base runs/x/reference-seed-2/arms/base.safetensors --baselines off"
        in commands["rule-median-seed-2"]
    )
    for name in ("reference-seed-1", "subjects-14-seed-1"):
        assert "--base " not in commands[name] and "--baselines on" in commands[name]


def test_all_faults_of_a_grid_are_reported_together() -> None:
    factors = [
        {"says": "Rule", "values": [{"rule": "vote"}], "changes": "all"},
        {"says": "Seed", "values": [{"seed": 4}]},
        {"values": []},
    ]
    with pytest.raises(SettingsError) as caught:
        make_grid(grid_of(seeds=[1, 1], factor=factors, extra=1))
    for said in ("extra", "different", "--rule", "changes must be", "seed is the study", "[[factor]] must have"):
        assert said in str(caught.value)


def test_the_grids_that_come_with_the_product_can_be_run() -> None:
    for path in sorted((_ROOT / "studies").glob("*.toml")):
        assert runs_of(read_grid(path))


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ((0.02, 0.001, 0.04), "better"),
        ((0.005, 0.001, 0.009), "equivalent"),
        ((0.005, 0.001, 0.02), "not resolved"),
        ((-0.02, -0.04, -0.001), "worse"),
        ((-0.02, -0.04, 0.01), "not resolved"),
    ],
)
def test_verdicts_are_the_protocols(difference: tuple[float, float, float], verdict: str) -> None:
    row = Row("x", 0.5, 0.5, None, None, None, 1.0, 1.0, Difference(*difference, p=0.1, subjects=9, seeds=3))
    assert row.verdict == verdict


def study(folder: Path, cache: Path, grid: str) -> subprocess.CompletedProcess[str]:
    (folder / "grid.toml").write_text(grid)
    flags = ["--out", folder / "runs", "--page", folder / "page.md", "--json"]
    return subprocess.run(
        [sys.executable, _ROOT / "simulations" / "study.py", folder / "grid.toml", *flags],
        env=os.environ | {"MCOE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_study_is_made_paired_written_up_and_gone_on_with(simulation_cache: Path, tmp_path: Path) -> None:
    lines = [f"{key} = {value}" for key, value in SMALL.items()]
    rule = '[[factor]]\nsays = "Rule"\nvalues = [{ rule = "median" }]'
    broken = '[[command]]\nsays = "None"\nrun = ["simulations/none.py"]\ntable = "t.md"'
    text = "\n".join(['name = "try"', "seeds = [3]", "[reference]", *lines, rule, broken])
    first = study(tmp_path, simulation_cache, text)
    assert first.returncode == ExitCode.FAILED and "1 runs failed" in first.stderr, first.stderr
    found = json.loads(first.stdout)
    reference, median = found["factors"][0]["rows"]
    assert (found["done"], found["failed"], reference["difference"]) == (2, ["command-1"], None)
    summaries = [
        json.loads((tmp_path / "runs" / name / "summary.json").read_text())
        for name in ("reference-seed-3", "rule-median-seed-3")
    ]
    assert summaries[0]["base"] == summaries[1]["base"]
    assert median["difference"]["estimate"] == pytest.approx(
        summaries[1]["federated"]["war"] - summaries[0]["federated"]["war"]
    )
    page = (tmp_path / "page.md").read_text()
    assert "--rule median --seed 3" in page and "Synthetic data" in page and "exploratory" in page
    assert (tmp_path / "page-differences.svg").read_text().count("rule median") == 1

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/summary.json")}
    second = study(tmp_path, simulation_cache, text.split("[[command]]")[0])
    assert second.returncode == 0, second.stderr
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/summary.json")}
    other = study(tmp_path, simulation_cache, text.replace("rounds = 1", "rounds = 2"))
    assert other.returncode == ExitCode.NOT_RESUMABLE and "use another --out" in other.stderr
