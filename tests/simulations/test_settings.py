"""Settings: checked whole, layered, and the same again from the TOML they print."""

import tomllib

import pytest

from mcoe_model.errors import DataMissing, SettingsError
from simulations import compare_personal, measure_leakage
from simulations.experiment import wants_baselines
from simulations.settings import SimulationSettings, make_settings, read_toml


def test_all_faults_are_reported_together():
    with pytest.raises(SettingsError) as caught:
        SimulationSettings(model="resnet", rounds=0, cohort="most", rule="vote", lr=-1.0, fold="7", subjects=0)
    said = str(caught.value)
    for flag in ("--model", "--rounds", "--cohort", "--rule", "learning rate", "--fold", "subjects"):
        assert flag in said


@pytest.mark.parametrize("base", ["train", "scratch"])
def test_batch_normalisation_left_to_itself_is_frozen_on_a_trained_base_and_shared_from_scratch(base):
    usual = SimulationSettings(base=base)
    named = SimulationSettings(base=base, batch_norm={"train": "frozen", "scratch": "shared"}[base])
    assert named.client_recipe == usual.client_recipe and named.preset == usual.preset == "mcoe-tiny"
    assert usual.client_recipe.batch_norm == {"train": "frozen", "scratch": "running"}[base]


def test_any_setting_of_seen_is_named_by_its_steps_and_skips():
    settings = SimulationSettings(model="seen-e5-s2")
    assert (settings.preset, settings.picture_size) == ("seen-e5-s2", 90)
    assert settings.base_recipe == SimulationSettings(model="seen").base_recipe
    with pytest.raises(SettingsError, match=r"--model must be one of mcoe, .*, seen-eN-sM \(N event pictures, 1 to 64"):
        SimulationSettings(model="seen-e99-s2")


def test_group_normalisation_is_another_model():
    assert SimulationSettings(batch_norm="group").preset == "mcoe-tiny-group"
    assert SimulationSettings(model="mcoe-edge", batch_norm="group", base="scratch").preset == "mcoe-edge-group"


@pytest.mark.parametrize("norm", [{"batch_norm": "group"}, {"model": "mcoe-tiny-group"}])
def test_one_preset_has_the_same_baselines_whatever_it_is_called(norm):
    assert wants_baselines(SimulationSettings(**norm)) and not wants_baselines(SimulationSettings(model="mcoe"))
    assert not wants_baselines(SimulationSettings(**norm, baselines="off"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_norm": "mine"}, ["--batch-norm must be one of"]),
        ({"batch_norm": "shared", "train": "head"}, ["--train full"]),
        ({"batch_norm": "frozen", "base": "scratch"}, ["trained base"]),
        ({"batch_norm": "local", "base": "scratch", "model": "mcoe-tiny-group"}, ["trained base", "already"]),
        ({"batch_norm": "group", "model": "seen", "base": "a.safetensors"}, ["not for seen", "what the base is"]),
        ({"batch_norm": "group", "imagenet": "resnet18.pth", "rounds": 0}, ["--imagenet", "--rounds"]),
    ],
)
def test_batch_normalisations_that_cannot_be_are_refused(settings, said):
    with pytest.raises(SettingsError) as caught:
        SimulationSettings(**settings)
    assert len(caught.value.faults) >= len(said) and all(one in str(caught.value) for one in said)


@pytest.mark.parametrize("study", [compare_personal, measure_leakage])
def test_a_study_that_trains_the_head_offers_no_batch_normalisation(study, capsys):
    with pytest.raises(SystemExit):
        study.main(["--help"])
    said = capsys.readouterr().out
    assert "--batch-size" in said and "--batch-norm" not in said and "--train " not in said


def test_head_training_without_a_trained_base_is_refused():
    with pytest.raises(SettingsError, match="trained base"):
        SimulationSettings(base="scratch", train="head")


def test_flags_go_over_the_file_and_the_file_over_the_scale(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('rounds = 5\nlocal-epochs = 3\nlr = 1\ncohort = 4\n')
    settings = make_settings("full", read_toml(path), {"rounds": 7, "rule": None})
    assert (settings.rounds, settings.local_epochs, settings.lr, settings.cohort) == (7, 3, 1.0, "4")
    assert settings.subjects == 111


def test_the_printed_toml_gives_the_same_settings_again(tmp_path):
    settings = make_settings("quick", {"data": 'C:\\SEE "x"', "cohort": "0.5", "tensorboard": True, "lr": 1e-5})
    path = tmp_path / "run.toml"
    path.write_text(settings.to_toml())
    assert make_settings("quick", read_toml(path)) == settings
    assert set(tomllib.loads(settings.to_toml())) >= {"base-epochs", "local-epochs"}


def test_unknown_keys_and_wrong_types_in_a_file_are_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('rouns = 5\nrounds = "many"\n')
    with pytest.raises(SettingsError, match=r"rouns.*rounds must be a int"):
        make_settings("quick", read_toml(path))


def test_a_missing_file_and_one_that_is_not_toml_are_refused(tmp_path):
    with pytest.raises(DataMissing):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("rounds = = 5")
    with pytest.raises(SettingsError, match="not TOML"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize(("grid", "rates"), [("", (0.5,)), ("1e-2", (0.01,)), ("1e-2, 1e-3,0.1", (0.001, 0.01, 0.1))])
def test_a_grid_stands_in_place_of_the_one_rate(grid, rates):
    assert SimulationSettings(lr=0.5, grid=grid).rates == rates


@pytest.mark.parametrize("grid", [",", "fast", "1e-3,1e-3", "0,1e-3", "1e-3,2", "nan", "1e-3;1e-2"])
def test_grids_that_mean_nothing_are_refused(grid):
    with pytest.raises(SettingsError, match="--grid"):
        SimulationSettings(grid=grid)


@pytest.mark.parametrize("fold", ["5", "-1", "some", ""])
def test_folds_that_there_are_not_are_refused(fold):
    with pytest.raises(SettingsError, match="--fold"):
        SimulationSettings(fold=fold)


def test_all_folds_are_the_settings_of_each():
    settings = SimulationSettings(fold="all", folds=3)
    assert [one.fold for one in settings.of_folds()] == ["0", "1", "2"]
    assert SimulationSettings(fold="2").of_folds() == (SimulationSettings(fold="2"),)


@pytest.mark.parametrize("cohort", ["all", "3", "0.5", "1"])
def test_cohorts_that_mean_something_are_accepted(cohort):
    assert SimulationSettings(cohort=cohort).cohort == cohort


@pytest.mark.parametrize("cohort", ["0", "-1", "1.5", "nan", "", "inf"])
def test_cohorts_that_mean_nothing_are_refused(cohort):
    with pytest.raises(SettingsError, match="cohort"):
        SimulationSettings(cohort=cohort)


def test_what_cannot_be_combined_is_refused_together():
    with pytest.raises(SettingsError) as caught:
        SimulationSettings(
            data="/data/SEE", design="wearable", partition="random", alpha=0.0, local_method="fedprox", proximal=-1.0,
            router="local", balance=2.0, base="scratch", base_lighting="dim",
        )  # fmt: skip
    said = str(caught.value)
    assert said.count("--base-lighting") == 2
    for flag in ("--design", "--partition", "--alpha", "--local-method", "--proximal", "router", "balance"):
        assert flag in said
