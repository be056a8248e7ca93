"""A finished run for the tests of this folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
