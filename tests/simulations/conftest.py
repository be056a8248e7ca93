"""A finished run for the tests of this folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from simulations.arms import train_base
from simulations.console import Display
from simulations.experiment import begin, prepare
from simulations.settings import SimulationSettings

_COMMAND = Path(__file__).parents[2] / "simulations" / "see_by_subject.py"


@pytest.fixture(scope="session")
def finished_run(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small simulation with all its arms, run once. Copy it before changing anything in it."""
    root = tmp_path_factory.mktemp("finished-run")
    sizes = {"subjects": 12, "sequences": 4, "rounds": 2, "base-epochs": 1, "workers": 1}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    subprocess.run(
        [sys.executable, _COMMAND, *flags, "--out", root / "run"],
        env=os.environ | {"MCOE_CACHE": str(simulation_cache)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    return root / "run"


@pytest.fixture(scope="session")
def prepared_base(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with a base that was hardly trained, ready for its rounds of training the head. Do not change it."""
    folder = tmp_path_factory.mktemp("prepared") / "base"
    settings = SimulationSettings(subjects=12, sequences=4, base_epochs=1, rounds=2, train="head", workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCOE_CACHE", str(simulation_cache))
        begin(settings, folder)
        prepare(settings, folder, Display(Console(quiet=True)))
        train_base(folder)
        yield folder
