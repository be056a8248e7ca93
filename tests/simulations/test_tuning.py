"""Tuning: the same trials for every arm, the best on validation is taken, and a best value at the edge is said."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.tuning import edge_notes, pool, value_to_add

_COMMAND = Path(__file__).parents[2] / "simulations" / "see_by_subject.py"
#: Generous: the machine may be busy with other things.
PATIENCE_S = 600
SETTINGS = ["--subjects", "12", "--sequences", "4", "--rounds", "2", "--base-epochs", "2", "--size", "32"]
#: With the first nothing is learned; with the last training diverges, and federated rounds fail.
RATES = {1e-5: "1e-05", 1e-3: "0.001", 1.0: "1"}
GRID = [*SETTINGS, "--grid", "1e-3,1e-5,1"]
TUNED = ("federated", "centralised", "local")


def start(cache: Path, *flags: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_COMMAND), *map(str, flags)],
        env=os.environ | {"MCOE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def tuned(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The cache, the folder and the words of a run with three trials."""
    cache, folder = simulation_cache, tmp_path_factory.mktemp("runs") / "tuned"
    return cache, folder, finish(start(cache, *GRID, "--out", folder))


def read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text()))


def predictions(folder: Path, pattern: str) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / "predictions").glob(pattern)):
        with np.load(path, allow_pickle=False) as stored:
            found[path.name] = stored["logits"].tobytes()
    return found


def test_every_arm_has_the_same_trials_and_takes_its_best(tuned):
    _, folder, _ = tuned
    tuning = read(folder, "run.json")["tuning"]
    assert tuning["grid"] == list(RATES)
    assert set(tuning["arms"]) == set(TUNED)
    for arm in TUNED:
        trials = tuning["arms"][arm]["trials"]
        assert [trial["lr"] for trial in trials] == list(RATES)
        best = max(trials, key=lambda trial: trial["validation_war"] or 0)
        assert tuning["arms"][arm]["chosen"] == best["lr"]
    assert read(folder, "summary.json")["tuning"] == tuning


def test_a_trial_that_diverges_is_lost_and_the_run_goes_on(tuned):
    _, folder, said = tuned
    trials = read(folder, "run.json")["tuning"]["arms"]["federated"]["trials"]
    assert [trial["validation_war"] is None for trial in trials] == [False, False, True]
    assert "Trial 3/3: federated training failed" in said


def test_no_trial_sees_the_test_part(tuned):
    _, folder, _ = tuned
    trials = sorted((folder / "trials").iterdir())
    assert {trial.name for trial in trials} == {f"lr-{name}" for name in RATES.values()}
    for trial in trials:
        assert predictions(trial, "*-validation.npz") and not predictions(trial, "*-test.npz")


def test_the_run_is_the_chosen_trial_again(tuned):
    _, folder, _ = tuned
    arms = read(folder, "run.json")["tuning"]["arms"]
    for arm, name in (("federated", "round-2-validation.npz"), ("centralised", "centralised*-validation.npz")):
        trial = folder / "trials" / f"lr-{RATES[arms[arm]['chosen']]}"
        assert predictions(folder, name) == predictions(trial, name) != {}
    others = [rate for rate in RATES if rate != arms["federated"]["chosen"]]
    for rate in others:
        other = predictions(folder / "trials" / f"lr-{RATES[rate]}", "round-2-validation.npz")
        assert other != predictions(folder, "round-2-validation.npz")


def test_a_single_value_is_the_run_without_a_grid(tuned, tmp_path):
    cache = tuned[0]
    for name, flags in (("plain", ["--lr", "1e-3"]), ("grid", ["--lr", "0.5", "--grid", "1e-3"])):
        finish(start(cache, *SETTINGS, *flags, "--baselines", "off", "--out", tmp_path / name))
    assert predictions(tmp_path / "grid", "*.npz") == predictions(tmp_path / "plain", "*.npz") != {}
    assert not (tmp_path / "grid" / "trials").exists()
    trial = read(tmp_path / "grid", "run.json")["tuning"]["arms"]["federated"]
    assert trial["chosen"] == 1e-3 and trial["add"] is None and 0 < trial["trials"][0]["validation_war"] < 1


def test_killed_among_trials_it_ends_with_the_same_bits(tuned, tmp_path):
    cache, folder, _ = tuned
    killed = tmp_path / "killed"
    flags: list[object] = [*GRID, "--workers", 1, "--out", killed]
    phases = ("trials/*/run.json", "trials/lr-0.001/spool/*/*.safetensors", "trials/lr-1/predictions/*", "models/*")
    for pattern in phases:
        process = start(cache, *flags)
        deadline = time.monotonic() + PATIENCE_S
        while not any(killed.glob(pattern)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        flags = ["--resume", killed]
    finish(start(cache, *flags))
    first, second = read(folder, "summary.json"), read(killed, "summary.json")
    assert second | {"seconds": 0} == first | {"seconds": 0}
    assert predictions(killed, "*.npz") == predictions(folder, "*.npz")


def test_the_report_and_the_console_say_what_was_tried(tuned):
    _, folder, said = tuned
    html, tuning = (folder / "report.html").read_text(), read(folder, "run.json")["tuning"]
    assert 'id="tuning"' in html
    for arm in TUNED:
        for trial in tuning["arms"][arm]["trials"]:
            war = trial["validation_war"]
            assert f"<td>{'failed' if war is None else f'{100 * war:.1f}'}</td>" in html
    notes = edge_notes(tuning)
    assert all(note in html and note in re.sub(r"\s+", " ", said) for note in notes)
    assert len(notes) == sum(tuning["arms"][arm]["chosen"] != 1e-3 for arm in TUNED)


@pytest.mark.parametrize(
    ("grid", "chosen", "add"),
    [
        ([1e-3], 1e-3, None),
        ([3e-4, 1e-3, 3e-3], 1e-3, None),
        ([3e-4, 1e-3, 3e-3], 3e-3, 9e-3),
        ([3e-4, 1e-3, 3e-3], 3e-4, 9e-5),
        ([1e-3, 1e-2], 1e-2, 0.1),
        ([0.1, 0.9], 0.9, 1.0),
    ],
)
def test_the_value_to_add_is_a_step_beyond_the_edge(grid, chosen, add):
    assert value_to_add(grid, chosen) == (pytest.approx(add) if add else None)


def tuning(chosen: float, add: float | None, wars: tuple[float, float]) -> dict[str, Any]:
    tried = zip((0.01, 0.1), wars, strict=True)
    trials = [{"lr": lr, "validation_war": war, "validation_uar": war} for lr, war in tried]
    return {"setting": "", "grid": [0.01, 0.1], "arms": {"local": {"chosen": chosen, "add": add, "trials": trials}}}


def test_folds_choose_for_themselves_and_are_pooled():
    pooled = pool([tuning(0.1, 1.0, (0.25, 0.5)), tuning(0.01, 0.001, (0.5, 0.25)), tuning(0.1, 1.0, (0.0, 0.0))])
    local = pooled["arms"]["local"]
    assert local["chosen"] == [0.1, 0.01, 0.1]
    assert [trial["validation_war"] for trial in local["trials"]] == [0.25, 0.25]
    assert edge_notes(pooled) == [
        "The best learning rate of the arm local is at the edge of the grid in 3 of 3 folds: add 0.001 and 1 to it."
    ]
