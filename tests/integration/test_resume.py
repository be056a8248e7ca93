"""A run killed again and again, and a run with other workers, end with the same bits as one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from refused import refused

from mcoe_model.errors import ExitCode
from mcoe_model.model_file import read_model

REPOSITORY = Path(__file__).parents[2]
#: Generous: the machine may be busy with other things.
PATIENCE_S = 600
SETTINGS = ["--subjects", "12", "--sequences", "4", "--rounds", "3", "--base-epochs", "3", "--size", "32"]


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


def results(folder: Path) -> dict[str, object]:
    """Everything that must be equal between two runs."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    predictions = {}
    for path in sorted((folder / "predictions").glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            predictions[path.name] = {key: stored[key].tobytes() for key in stored.files}
    return {
        "summary": summary,
        "predictions": predictions,
        "model": {name: value.tobytes() for name, value in read_model(folder / "model.safetensors")[0].items()},
        "tables": {path.name: path.read_text() for path in folder.glob("*.csv")},
    }


@pytest.fixture(scope="module")
def undisturbed(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that nobody disturbed, with two workers, and the cache that it used."""
    cache, folder = simulation_cache, tmp_path_factory.mktemp("runs") / "undisturbed"
    finish(command(cache, *SETTINGS, "--workers", 2, "--out", folder))
    return cache, folder


def test_a_run_killed_in_every_phase_ends_with_the_same_bits(undisturbed, tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "killed"

    def files(pattern: str) -> int:
        return sum(1 for _ in tmp_path.glob(pattern))

    phases = [
        lambda: files("cache/synthetic/*/event/*/*") >= 5,
        lambda: files("killed/parts.json") == 1,
        lambda: files("killed/arms/base.safetensors") == 1,
        lambda: files("killed/spool/round-1-1/*.safetensors") >= 1,
        lambda: files("killed/spool/round-3-1/*.safetensors") >= 2,
        lambda: files("killed/predictions/*-validation.npz") >= 1,
    ]
    flags: list[object] = [*SETTINGS, "--workers", 1, "--out", folder]
    for reached in phases:
        kill_when(command(cache, *flags), reached)
        flags = ["--resume", folder]
    finish(command(cache, *flags))
    assert results(folder) == results(undisturbed[1])


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(undisturbed):
    cache, folder = undisturbed
    before = results(folder)
    finish(command(cache, "--resume", folder))
    assert results(folder) == before


def test_resuming_with_other_settings_is_refused(undisturbed):
    cache, folder = undisturbed
    assert "--rounds" in refused(cache, ExitCode.USAGE, "--resume", folder, "--rounds", 5)


def test_an_output_folder_that_exists_is_left_alone(undisturbed):
    cache, folder = undisturbed
    before = results(folder)
    assert "--resume" in refused(cache, ExitCode.OUTPUT_EXISTS, *SETTINGS, "--out", folder)
    assert results(folder) == before
