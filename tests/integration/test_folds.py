"""All folds in one run: every subject is tested once, each fold is a run of its own, and a kill changes no bit."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refused import refused

from mcoe_model.errors import ExitCode

REPOSITORY = Path(__file__).parents[2]
#: Generous: the machine may be busy with other things.
PATIENCE_S = 600
SETTINGS = ["--subjects", "12", "--sequences", "4", "--rounds", "2", "--base-epochs", "2", "--size", "32"]
FOLDS = [*SETTINGS, "--folds", "3", "--passes", "2"]
ARMS = ("base", "federated", "centralised", "local", "all_data")


def command(cache: Path, *flags: object) -> subprocess.Popen[str]:
    script = REPOSITORY / "simulations" / "see_by_subject.py"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, flags)],
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


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """SIGKILL the run's main process, not its workers: they must end by themselves."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"the run ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def results(folder: Path) -> dict[str, object]:
    """Everything that must be equal between two runs of one fold."""
    summary = read(folder)
    del summary["seconds"]
    predictions = {}
    for path in sorted((folder / "predictions").glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            predictions[path.name] = {key: stored[key].tobytes() for key in stored.files}
    return {
        "summary": summary,
        "predictions": predictions,
        "model": (folder / "model.safetensors").read_bytes(),
        "tables": {path.name: path.read_text() for path in folder.glob("*.csv")},
    }


def pooled(folder: Path) -> dict[str, Any]:
    """The pooled summary without the times."""
    summary = read(folder)
    del summary["seconds"]
    for fold in summary["folds"]:
        del fold["seconds"]
    return summary


@pytest.fixture(scope="module")
def undisturbed(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run over three folds that nobody disturbed, and the cache that it used."""
    cache, folder = simulation_cache, tmp_path_factory.mktemp("runs") / "folds"
    said = finish(command(cache, *FOLDS, "--fold", "all", "--workers", 2, "--out", folder))
    assert [f"Fold {number} ({number + 1} of 3)" in said for number in range(3)] == [True] * 3
    return cache, folder


def test_every_subject_is_tested_once(undisturbed):
    _, folder = undisturbed
    tested = []
    for number in range(3):
        with np.load(folder / f"fold-{number}" / "predictions" / "round-2-test.npz", allow_pickle=False) as stored:
            tested.append(set(stored["subjects"].tolist()))
    assert sum(map(len, tested)) == len(set.union(*tested)) == 12
    summary = read(folder)
    assert (summary["fold"], summary["subjects"]["test"], summary["clips"]["test"]) == ("all", 12, 48)


def test_the_pooled_figures_are_of_all_folds_clips(undisturbed):
    _, folder = undisturbed
    summary, folds = read(folder), [read(folder / f"fold-{number}") for number in range(3)]
    assert summary.keys() == folds[0].keys() | {"folds"}
    for arm in ARMS:
        assert summary[arm]["war"] == pytest.approx(np.average([f[arm]["war"] for f in folds],
                                                               weights=[f[arm]["n"] for f in folds]))
        confusion = np.sum([f[arm]["confusion"] for f in folds], axis=0)
        np.testing.assert_allclose(summary[arm]["confusion"], confusion)
        assert summary["random_passes"][arm]["war"] == pytest.approx(
            np.average([f["random_passes"][arm]["war"] for f in folds], weights=[f[arm]["n"] for f in folds])
        )
        assert [fold["war"][arm] for fold in summary["folds"]] == [f[arm]["war"] for f in folds]
    assert summary["differences"]["federated - base"]["subjects"] == 12
    assert summary["bytes_up"] == sum(f["bytes_up"] for f in folds)
    with (folder / "rounds.csv").open() as file:
        assert [(row["fold"], row["round"]) for row in csv.DictReader(file)] == [
            (str(fold), str(number)) for fold in range(3) for number in (1, 2)
        ]
    assert json.loads((folder / "run.json").read_text())["folds"] == ["fold-0", "fold-1", "fold-2"]


def test_the_report_links_to_each_fold_s(undisturbed):
    _, folder = undisturbed
    html = (folder / "report.html").read_text()
    links = [link for link in re.findall(r'href="([^"#]+)"', html) if not link.startswith("data:")]
    assert links == [f"fold-{number}/report.html" for number in range(3)]
    assert all((folder / link).exists() for link in links)
    assert "Each of the 12 subjects was tested once" in html
    assert 'id="experts"' not in html


def test_killed_in_any_fold_it_ends_with_the_same_bits(undisturbed, tmp_path):
    cache, folder = undisturbed
    killed = tmp_path / "killed"
    flags: list[object] = [*FOLDS, "--fold", "all", "--workers", 1, "--out", killed]
    for reached in (
        lambda: (killed / "fold-0" / "parts.json").exists(),
        lambda: (killed / "fold-0" / "summary.json").exists(),
        lambda: any((killed / "fold-2" / "spool").glob("*/*.safetensors")),
    ):
        kill_when(command(cache, *flags), reached)
        flags = ["--resume", killed]
    finish(command(cache, *flags))
    assert pooled(killed) == pooled(folder)
    assert (killed / "rounds.csv").read_text() == (folder / "rounds.csv").read_text()
    for number in range(3):
        assert results(killed / f"fold-{number}") == results(folder / f"fold-{number}")


def test_a_fold_is_the_run_of_that_fold_alone_and_can_be_resumed_so(undisturbed, tmp_path):
    cache, folder = undisturbed
    finish(command(cache, *FOLDS, "--fold", 1, "--workers", 1, "--out", tmp_path / "alone"))
    assert results(tmp_path / "alone") == results(folder / "fold-1")
    finish(command(cache, "--resume", folder / "fold-1"))
    assert results(tmp_path / "alone") == results(folder / "fold-1")


def test_folds_that_cannot_be_are_refused_before_any_work(simulation_cache, tmp_path):
    to_run = ("--fold", "all", "--out", tmp_path / "run")
    refused(simulation_cache, ExitCode.TOO_FEW_SUBJECTS, *SETTINGS, "--folds", 13, *to_run)
    assert not (tmp_path / "run").exists()
    assert "--fold all" in refused(simulation_cache, ExitCode.USAGE, "--protocol", "published", *to_run)
