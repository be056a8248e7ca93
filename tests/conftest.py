"""For every test: one thread for torch, as in every worker of the product, and properties that hold at every run.

More threads only fight over the processors. Hypothesis draws the same examples each time, since a run must say
something about the code and not about the draw; and it may take its time, since the machine may be busy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from mcoe_model.workers import one_thread

# Where the environment forbids it, every process that a test starts would compile the whole program anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

one_thread()
assert torch.get_num_threads() == 1

settings.register_profile("mcoe", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mcoe")

#: The files that take minutes, the longest first: whoever begins with them does not wait for the last of them.
LONGEST = (
    "integration/test_fleet.py",
    "integration/test_fleet_of_wearables.py",
    "integration/test_folds.py",
    "integration/test_wearable_learns.py",
    "integration/test_run_taken_over.py",
    "integration/test_sleeping_clients.py",
    "integration/test_page_on_a_phone.py",
    "integration/test_flower_engine.py",
    "simulations/test_tuning.py",
    "integration/test_client_node.py",
    "integration/test_two_experiments.py",
    "integration/test_bad_input.py",
    "integration/test_resume.py",
    "integration/test_first_k.py",
    "integration/test_release.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others keep their order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in places)
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def simulation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For MCOE_CACHE: synthetic data that are drawn once in a run of the tests, by whichever worker comes first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "simulation-cache"
    folder.mkdir(exist_ok=True)
    return folder
