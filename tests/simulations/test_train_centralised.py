"""The central training's command: a model that a run, or a fleet, can begin from."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mcoe_model.model_file import read_card
from simulations.console import Display
from simulations.experiment import begin_or_resume
from simulations.parts import Parts
from simulations.settings import SimulationSettings

COMMAND = Path(__file__).parents[2] / "simulations" / "train_centralised.py"
SIZES = {"subjects": 12, "sequences": 4, "workers": 1}
FLAGS = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def trained(simulation_cache, tmp_path_factory):
    """The folder of a finished training, and what it wrote to its standard output with ``--json``."""
    folder = tmp_path_factory.mktemp("central") / "run"
    done = subprocess.run(
        [sys.executable, COMMAND, *FLAGS, "--base-epochs", "2", "--json", "--tensorboard", "--out", folder],
        env=os.environ | {"MCOE_CACHE": str(simulation_cache)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_learns_from_all_but_validation_and_test_by_its_own_recipe(trained):
    folder, said = trained
    summary = json.loads(said)
    assert summary == json.loads((folder / "summary.json").read_text())
    with (folder / "curves" / "all_data.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2 and losses[1] < losses[0], "the recipe's epochs, whatever rounds a simulation has"
    card = read_card(folder / "model.safetensors")
    assert (card.generation.preset, card.generation.input_size) == ("mcoe-tiny", 64)
    untouched = Parts.read(folder / "parts.json").test_sha256
    assert card.trained_on == {"data": "synthetic", "part": "base + clients", "test_sha256": untouched}
    assert card.metrics["test"]["war"] == summary["all_data"]["war"]


def test_a_run_begins_from_its_model(trained, simulation_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    base = str(trained[0] / "model.safetensors")
    settings = SimulationSettings(**SIZES, base=base, train="head")
    begin_or_resume(settings, tmp_path / "run", Display(Console(quiet=True)), resumed=False)
    assert (tmp_path / "run" / "parts.json").exists()


def test_tensorboard_shows_the_training(trained):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = loader.EventAccumulator(str(trained[0] / "tensorboard" / "all_data"))
    log.Reload()
    assert [point.step for point in log.Scalars("train/loss")] == [1, 2]
