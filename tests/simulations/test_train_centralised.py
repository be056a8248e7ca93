"""The central training's command: a model that a run, or a fleet, can begin from."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.samples import PictureSamples
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import SEE_NORMALISATION, read_card
from simulations.console import Display
from simulations.experiment import begin_or_resume
from simulations.parts import Parts
from simulations.scene import open_scene
from simulations.settings import SimulationSettings
from simulations.train_centralised import main

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
    assert summary["trained_on"]["n"] == summary["clips"]["base"] + summary["clips"]["clients"]
    assert summary["unlike_published"] is None


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


#: As few people and clips as SEE's own split can be made of, as small as an eye can be drawn.
FEW = ("--subjects", "6", "--sequences", "3", "--base-epochs", "1", "--workers", "1")


@pytest.fixture
def ask(simulation_cache, monkeypatch, capsys):
    """Runs the command in this process: its summary, and what a person reads."""
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))

    def asked(*flags):
        main([*map(str, flags), "--json"])
        said, read = capsys.readouterr()
        return json.loads(said.splitlines()[-1]), " ".join(read.split())

    return asked


def test_seen_is_trained_as_published_and_scored_on_what_it_learned_from_too(ask, tmp_path):
    folder = tmp_path / "run"
    summary, read = ask("--protocol", "published", "--model", "seen", "--size", 24, *FEW, "--out", folder)
    scene, (model, card) = open_scene(folder), load_model(folder / "model.safetensors")
    learned = scene.indices("base") + scene.indices("clients")
    said = evaluate(model, PictureSamples(scene.clips, learned, SEE_NORMALISATION))
    war = said.predicted()[np.arange(len(learned)), said.labels].mean()
    assert (summary["trained_on"]["n"], summary["trained_on"]["war"]) == (len(learned), pytest.approx(war))
    assert card.generation.normalisation == SEE_NORMALISATION and "unlike_published" not in card.trained_on
    own, test = (f"WAR {100 * scored['war']:.1f} %, UAR {100 * scored['uar']:.1f} % on" for scored in
                 (summary["trained_on"], summary["all_data"]))  # fmt: skip
    assert f"{own} the {len(learned)} clips it learned from, {test} {summary['clips']['test']} test clips" in read

    trained = (folder / "arms" / "all_data.safetensors").stat().st_mtime_ns
    (folder / "predictions" / "all_data-clients.npz").unlink()  # as if it had been killed before it said of these
    (folder / "summary.json").unlink()
    again, _ = ask("--resume", folder)
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert (folder / "arms" / "all_data.safetensors").stat().st_mtime_ns == trained


def test_mco_e_net_from_random_weights_is_said_to_be_unlike_the_published(ask, tmp_path):
    folder = tmp_path / "run"
    summary, read = ask("--protocol", "published", "--model", "mcoe-tiny", "--size", 24, *FEW, "--out", folder)
    assert "ImageNet" in summary["unlike_published"] and "do not expect the published figures" in read
    assert read.count(summary["unlike_published"]) == 1
    assert read_card(folder / "model.safetensors").trained_on["unlike_published"] == summary["unlike_published"]
