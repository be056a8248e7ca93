"""What a run is compared with sees as many samples as the run itself."""

import csv
from pathlib import Path

import pytest

from simulations.arms import presentations, presentations_of_all, unlike_published
from simulations.scene import open_scene
from simulations.settings import SimulationSettings


@pytest.mark.parametrize(("cohort", "epochs"), [("all", 48), ("5", 24), ("0.3", 14), ("1", 5)])
def test_centralised_and_alone_see_what_the_rounds_show(cohort, epochs):
    assert presentations(SimulationSettings(rounds=24, local_epochs=2, cohort=cohort), 10) == epochs


def test_all_data_are_shown_as_often_as_base_training_and_rounds_show_them_together():
    settings = {"base_epochs": 20, "rounds": 24}
    assert presentations_of_all(SimulationSettings(**settings), 10, 100, 100) == 22
    assert presentations_of_all(SimulationSettings(**settings), 10, 300, 100) == 21
    assert presentations_of_all(SimulationSettings(**settings, base="scratch"), 10, 100, 100) == 12
    assert presentations_of_all(SimulationSettings(base_epochs=8, rounds=40, cohort="5"), 10, 100, 100) == 14


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"model": "mcoe"}, "no --imagenet"),
        ({"model": "mcoe-edge", "base": "scratch"}, "no --imagenet"),
        ({"model": "mcoe", "protocol": "published"}, "no --imagenet"),
        ({"model": "mcoe-tiny", "protocol": "published"}, "do not fit"),
        ({"model": "mcoe-edge", "batch_norm": "group", "protocol": "published"}, "do not fit"),
        ({"model": "mcoe", "protocol": "published", "imagenet": "resnet18.safetensors"}, None),
        ({"model": "mcoe-edge", "base": "trained.safetensors"}, None),
        ({"model": "mcoe-tiny"}, None),
        ({"model": "seen", "protocol": "published"}, None),
        ({"model": "cmfnet", "protocol": "published"}, None),
    ],
)
def test_a_run_that_lacks_imagenets_weights_says_what_that_costs(settings, why):
    said = unlike_published(SimulationSettings(**settings))
    assert said is None if why is None else why in said and "ImageNet" in said and "published figures" in said


def test_a_run_trains_its_arms_for_as_long(finished_run):
    def epochs(arm: str) -> int:
        with (finished_run / "curves" / f"{arm}.csv").open() as file:
            return len(list(csv.DictReader(file)))

    scene = open_scene(Path(finished_run))
    base, clients = (len(scene.indices(part)) for part in ("base", "clients"))
    assert (epochs("base"), epochs("centralised"), epochs("centralised-large-batch")) == (1, 2, 2)
    assert {epochs(f"local-{subject}") for subject in scene.subjects("clients")} == {2}
    assert epochs("all_data") == round((base + 2 * clients) / (base + clients))
