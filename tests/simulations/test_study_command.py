"""A declared grid: every run once, paired with the reference of its seed, and a page with the commands."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from mcoe_model.errors import ExitCode, SettingsError
from mcoe_model.learning.metrics import Difference
from simulations import study as command
from simulations.study_grid import command_of, make_grid, read_grid, runs_of
from simulations.study_results import Measures, Row

_ROOT = Path(__file__).parents[2]
SMALL = {"subjects": 6, "sequences": 3, "rounds": 1, "base-epochs": 1, "size": 24}
#: Generous: the machine may be busy with other things.
PATIENCE_S = 600


def grid_of(**over: Any) -> dict[str, Any]:
    factor = {"says": "Rule", "values": [{"rule": "median"}, {"rule": "krum"}]}
    return {"name": "try", "seeds": [1, 2], "reference": dict(SMALL), "factor": [factor]} | over


def row_with(value: str, difference: Difference | None) -> Row:
    """A row that has nothing but a difference."""
    unknown: dict[str, Any] = dict.fromkeys(
        ("worst_tenth", "base", "judged", "upper", "all_data", "room", "gain", "gain_interval")
    )
    measures = Measures(0.5, 0.5, None, (7, 7), {}, {})
    known: dict[str, Any] = {"war": 0.5, "uar": 0.5, "megabytes_up": 1.0, "seconds": 1.0, "measures": measures}
    return Row(value=value, seeds=3, missing=0, difference=difference, **unknown, **known)


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


def test_a_reader_who_has_seen_enough_is_no_fault() -> None:
    line = [sys.executable, "simulations/study.py", "studies/reduced.toml", "--list"]
    with subprocess.Popen(line, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None and listing.stderr is not None
        listing.stdout.close()
        said = listing.stderr.read().strip()
    assert listing.returncode == ExitCode.INTERRUPTED and said.startswith("stopped:") and "\n" not in said


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
    assert row_with("x", Difference(*difference, p=0.1, subjects=9, seeds=3)).verdict == verdict


def test_a_setting_that_nothing_was_compared_with_is_not_the_reference() -> None:
    assert [row_with(value, None).verdict for value in ("reference", "x")] == ["the reference", "not compared"]


def test_factors_that_share_a_base_are_refused_over_all_folds() -> None:
    reference = SMALL | {"fold": "all"}
    with pytest.raises(SettingsError, match="no one base to share"):
        make_grid(grid_of(reference=reference))
    assert make_grid(grid_of(reference=reference, factor=[grid_of()["factor"][0] | {"changes": "base"}]))


def test_a_grid_without_a_named_page_writes_over_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = list[tuple[Path, str]]()

    def write(_: Any, page: Path, made_by: str) -> dict[str, Any]:
        written.append((page.relative_to(tmp_path), made_by))
        return {}

    monkeypatch.setattr(command.Study, "run", lambda *_: {})
    monkeypatch.setattr(command.Study, "write", write)
    (tmp_path / "studies").mkdir()
    for name in ("reduced", "batch_norm"):
        (tmp_path / "studies" / f"{name}.toml").write_text((_ROOT / "studies" / f"{name}.toml").read_text())
    monkeypatch.chdir(tmp_path)
    ours = sorted((_ROOT / "studies").glob("*.toml"))
    for grid in (*ours, Path("studies/reduced.toml"), Path("studies/batch_norm.toml")):
        command.main([str(grid)])
        assert written[-1][1] == f"python simulations/study.py {grid}"
    command.main(["studies/reduced.toml", "--page", "mine.md"])
    assert [str(page) for page, _ in written] == [
        "docs/study-batch-norm.md", "docs/study-expert-rules-iid.md", "docs/study-expert-rules-label-skew.md",
        "docs/study-federated-methods.md", "docs/study-recovered-gain.md", "docs/study.md",
        "docs/study-reduced.md", "docs/study-batch-norm.md", "mine.md",
    ]  # fmt: skip
    assert written[-1][1] == "python simulations/study.py studies/reduced.toml --page mine.md"


RATES = '[[factor]]\nsays = "Rate"\nvalues = [{ lr = 0.01 }, { lr = 0.0001 }]'
TEXT = "\n".join(['name = "try"', "seeds = [3]", "[reference]", *(f"{key} = {SMALL[key]}" for key in SMALL), RATES])
BROKEN = '\n[[command]]\nsays = "None"\nrun = ["simulations/none.py"]\ntable = "t.md"'
RUNS = ("reference-seed-3", "lr-0.01-seed-3", "lr-0.0001-seed-3")


def start(folder: Path, cache: Path, grid: str, jobs: int) -> subprocess.Popen[str]:
    (folder / "grid.toml").write_text(grid)
    flags = ["--out", folder / "runs", "--page", folder / "page.md", "--jobs", str(jobs), "--json"]
    return subprocess.Popen(
        [sys.executable, _ROOT / "simulations" / "study.py", folder / "grid.toml", *flags],
        env=os.environ | {"MCOE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Told(NamedTuple):
    """How a study ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of its one factor, but for how long they took."""
        return [row | {"seconds": 0} for row in json.loads(self.out)["factors"][0]["rows"]]


def study(folder: Path, cache: Path, grid: str, jobs: int) -> Told:
    with start(folder, cache, grid, jobs) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return Told(process.returncode, out, err)


def summaries_of(folder: Path) -> list[dict[str, Any]]:
    """What each run has found, but for how long it took."""
    return [json.loads((folder / "runs" / name / "summary.json").read_text()) | {"seconds": 0} for name in RUNS]


@pytest.fixture(scope="module")
def one_by_one(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """A study of one run at a time, which has a command that cannot be run: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("one-by-one")
    return folder, study(folder, simulation_cache, TEXT + BROKEN, 1)


def test_a_study_is_made_paired_written_up_and_gone_on_with(
    one_by_one: tuple[Path, Told], simulation_cache: Path
) -> None:
    folder, first = one_by_one
    assert first.code == ExitCode.FAILED and "1 runs failed" in first.err, first.err
    found = json.loads(first.out)
    reference, faster, _ = found["factors"][0]["rows"]
    assert (found["done"], found["failed"], reference["difference"]) == (3, ["command-1"], None)
    summaries = summaries_of(folder)
    assert summaries[0]["base"] == summaries[1]["base"]
    assert faster["difference"]["estimate"] == pytest.approx(
        summaries[1]["federated"]["war"] - summaries[0]["federated"]["war"]
    )
    page = (folder / "page.md").read_text()
    assert "--lr 0.01 --seed 3" in page and "Synthetic data" in page and "exploratory" in page
    assert (folder / "page-differences.svg").read_text().count("lr 0.0001") == 1

    made = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/summary.json")}
    second = study(folder, simulation_cache, TEXT, 1)
    assert second.code == 0, second.err
    assert made == {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/summary.json")}
    other = study(folder, simulation_cache, TEXT.replace("rounds = 1", "rounds = 2"), 1)
    assert other.code == ExitCode.NOT_RESUMABLE and "use another --out" in other.err


def test_a_study_of_two_runs_at_once_that_was_killed_among_them_ends_with_the_same_rows(
    one_by_one: tuple[Path, Told], simulation_cache: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    begun = [runs / name / "parts.json" for name in RUNS[1:]]  # both have the data, and nothing of a round

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with start(tmp_path, simulation_cache, TEXT, 2) as process:
        wait_for(lambda: process.poll() is not None or all(path.exists() for path in begun))
        process.kill()
    assert all(path.exists() for path in begun)
    assert not all((runs / name / "report.html").exists() for name in RUNS[1:])

    def running() -> bool:
        """Whether a run of the study that was killed has not ended yet."""
        return any(str(runs) in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))

    wait_for(lambda: not running())
    before = {name: json.loads((runs / name / "run.json").read_text())["started"] for name in RUNS}
    reference = (runs / RUNS[0] / "summary.json").stat().st_mtime_ns

    again = study(tmp_path, simulation_cache, TEXT, 2)
    assert again.code == 0, again.err
    assert before == {name: json.loads((runs / name / "run.json").read_text())["started"] for name in RUNS}
    assert (runs / RUNS[0] / "summary.json").stat().st_mtime_ns == reference
    assert again.rows == one_by_one[1].rows
    assert summaries_of(tmp_path) == summaries_of(one_by_one[0])
