"""The server's settings: file, then environment, then flags; whatever is wrong is said together, before any work."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mcoe_model.errors import DataMissing, ExitCode, SettingsError
from server.paths import ServerPaths
from server.settings import ServerSettings
from server.settings_file import load_settings


def folder_with(folder: Path, settings: str = "") -> ServerPaths:
    paths = ServerPaths(folder)
    paths.settings.write_text(settings)
    return paths


def faults_of(paths: ServerPaths, flags: dict[str, object], environment: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load_settings(paths, flags, environment)
    assert raised.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(raised.value)
    return raised.value.faults


def test_without_any_setting_the_server_works_on_this_machine_alone(tmp_path: Path) -> None:
    settings = load_settings(folder_with(tmp_path), {}, {})
    assert settings == ServerSettings()
    assert settings.host == "127.0.0.1"
    assert ServerPaths(tmp_path).database_url(settings.database) == f"sqlite:///{tmp_path}/registry.sqlite"


def test_the_environment_goes_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    paths = folder_with(tmp_path, "port = 1001\nlocal_port = 1002\nmin_clients = 3\nseed = 4\n")
    environment = {"MCOE_SERVER_LOCAL_PORT": "2002", "MCOE_SERVER_MIN_CLIENTS": "5", "PATH": "/bin"}
    found = load_settings(paths, {"min_clients": 7, "seed": None}, environment)
    assert (found.port, found.local_port, found.min_clients, found.seed) == (1001, 2002, 7, 4)


def test_the_environments_text_gets_the_settings_type(tmp_path: Path) -> None:
    paths = folder_with(tmp_path)
    for text, meant in (("false", False), ("0", False), ("TRUE", True), ("1", True)):
        assert load_settings(paths, {}, {"MCOE_SERVER_ENROLMENT": text}).enrolment is meant
    found = load_settings(paths, {}, {"MCOE_SERVER_QUORUM": "1", "MCOE_SERVER_COHORT": "12"})
    assert (found.quorum, found.cohort) == (1.0, "12")
    assert isinstance(found.quorum, float)


def test_a_whole_number_in_the_file_does_for_a_float(tmp_path: Path) -> None:
    assert load_settings(folder_with(tmp_path, "deadline_s = 60\n"), {}, {}).deadline_s == 60.0


def test_every_fault_is_reported_together(tmp_path: Path) -> None:
    """Unknown names, wrong types and wrong values, of all three sources."""
    paths = folder_with(tmp_path, 'prot = 8443\nport = "8443"\nquorum = 1.5\nrule = "mode"\n[table]\n')
    environment = {"MCOE_SERVER_SEED": "many", "MCOE_SERVER_SEEED": "1", "MCOE_SERVER_LR": "-1"}
    found = faults_of(paths, {"min_clients": 0, "train": "tail", "cohort": "most"}, environment)
    for said in ("'prot'", "port must be a int", "quorum", "rule", "'table'", "seed must be a int", "'seeed'",
                 "min_clients", "train", "cohort", "learning rate"):  # fmt: skip
        assert [fault for fault in found if said in fault], said
    assert len(found) == 11


def test_a_file_that_cannot_be_read_is_a_fault_beside_the_others(tmp_path: Path) -> None:
    paths = folder_with(tmp_path, "port = = 3")
    found = faults_of(paths, {}, {"MCOE_SERVER_SEED": "many"})
    assert len(found) == 2 and str(paths.settings) in found[0]
    paths.settings.write_bytes(b"\xff\xfe")
    assert len(faults_of(paths, {}, {})) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("local_port", 8443),
        ("dashboard_port", 8443),
        ("dashboard_port", 8444),
        ("dashboard_port", 65536),
        ("webhook", "example.org/hook"),
        ("webhook", "https://example.org:many/hook"),
        ("host", " "),
        ("experiment", ""),
        ("database", "registry.sqlite"),
        ("min_clients", -1),
        ("quorum", 0.0),
        ("quorum", float("nan")),
        ("deadline_s", float("nan")),
        ("deadline_s", float("inf")),
        ("deadline_s", 0.0),
        ("pause_s", float("nan")),
        ("pause_s", -1.0),
        ("disk_floor_mb", -1),
        ("seed", -1),
        ("local_epochs", 0),
        ("batch_size", 0),
        ("lr", float("nan")),
        ("evaluation_margin", -0.1),
        ("evaluation_clients", 2),
        ("canary_share", 1.5),
        ("canary_check_ins", 0),
        ("canary_hours", 0.0),
        ("release", "later"),
        ("cohort", "1.5"),
        ("server_optimiser", "sgd"),
        ("server_lr", 0.1),
        ("server_adaptivity", 0.0),
        ("server_momentum", 1.0),
        ("cohort", "0"),
    ],
)
def test_a_value_out_of_bounds_is_named(tmp_path: Path, name: str, value: object) -> None:
    (fault,) = faults_of(folder_with(tmp_path), {name: value}, {})
    said = {"lr": "learning rate", "local_epochs": "epochs", "batch_size": "batch size", "server_lr": "learning rate"}
    assert said.get(name, name.replace("server_", "server ")) in fault


def test_the_optimisers_settings_are_taken_together(tmp_path: Path) -> None:
    found = load_settings(folder_with(tmp_path), {"server_optimiser": "fedadam", "server_momentum": 0.8}, {})
    assert (found.optimiser.rate, found.optimiser.momentum) == (0.01, 0.8)
    assert ServerSettings(server_optimiser="fedavgm", server_lr=0.5).optimiser.rate == 0.5
    assert ServerSettings().optimiser.name == "none"


@pytest.mark.parametrize(("name", "value"), [("evaluation_clients", 3), ("canary_share", 0.1)])
def test_private_mode_asks_no_client_about_a_model(tmp_path: Path, name: str, value: object) -> None:
    assert load_settings(folder_with(tmp_path), {name: value}, {})
    (fault,) = faults_of(folder_with(tmp_path), {name: value, "private": True}, {})
    assert name in fault and "noise" in fault


def test_private_mode_takes_no_other_rule_and_says_which_one_it_has(tmp_path: Path) -> None:
    private = load_settings(folder_with(tmp_path, "private = true\n"), {}, {})
    assert (private.rule_in_force, ServerSettings().rule_in_force) == ("private-mean", "expert-weighted-mean")
    for file, flags in (('private = true\nrule = "median"\n', {}), ("private = true\n", {"rule": "median"})):
        (fault,) = faults_of(folder_with(tmp_path, file), flags, {})
        assert "rule" in fault and "private-mean" in fault


def test_a_webhook_and_no_dashboard_can_be_set(tmp_path: Path) -> None:
    flags = {"webhook": "https://user:hush@[::1]:8080/a?b=c", "dashboard_port": 0}
    found = load_settings(folder_with(tmp_path), flags, {})
    assert found.dashboard_port == 0


def test_a_database_that_is_none_is_refused_without_its_password(tmp_path: Path) -> None:
    (fault,) = faults_of(folder_with(tmp_path), {"database": "postgres://me:hush@:x:/"}, {})
    assert "hush" not in fault


def test_a_folder_that_init_did_not_make_holds_no_server(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="mcoe-server init"):
        load_settings(ServerPaths(tmp_path / "nothing"), {}, {})


def test_every_setting_says_what_it_is() -> None:
    for setting in fields(ServerSettings):
        assert setting.metadata["help"].strip(), setting.name
