"""The files for the machine around the program: they are in every distribution, and name what is really there."""

from __future__ import annotations

import configparser
import fnmatch
import re
import shlex
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from typer.main import get_command

from client.cameras import davis346
from client.cli import app

ROOT = Path(__file__).parents[2]
UNITS = ("mcoe-client.service", "mcoe-rescue-ap.service")
FILES = ("65-inivation.rules", *UNITS)


def shipped(name: str) -> str:
    return resources.files("client.deploy").joinpath(name).read_text()


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(shipped(name))
    return read


def test_an_installed_distribution_has_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {"client", "client.deploy"} <= set(project["packages"])
    there = {path.name for path in resources.files("client.deploy").iterdir() if not path.name.startswith("__")}
    assert there == set(FILES)
    shown = project["package-data"]["client"]
    assert all(any(fnmatch.fnmatchcase(f"deploy/{name}", pattern) for pattern in shown) for name in FILES)


def test_the_udev_rule_is_for_the_cameras_that_the_adapter_looks_for() -> None:
    [line] = [line for line in shipped("65-inivation.rules").splitlines() if line and not line.startswith("#")]
    found = re.findall(r'([\w{}]+)(==|\+=|=)"([^"]*)"(?:, |$)', line)
    assert ", ".join(f'{key}{sign}"{value}"' for key, sign, value in found) == line, "no part of it is left over"
    matches = {key: value for key, sign, value in found if sign == "=="}
    assert matches.pop("SUBSYSTEM") == "usb" and matches.pop("ATTR{idVendor}") == davis346._VENDOR
    products = matches.pop("ATTR{idProduct}")
    assert fnmatch.fnmatchcase(davis346._DAVIS346, products) and not matches
    assert all(fnmatch.fnmatchcase(f"{begins}f", products) for begins in davis346._PRODUCTS)
    given = {key: value for key, sign, value in found if sign != "=="}
    assert given == {"MODE": "0660", "GROUP": "plugdev", "TAG": "uaccess"}


@pytest.mark.parametrize("name", UNITS)
def test_units_are_units(name: str) -> None:
    read = unit(name)
    assert read.sections() == ["Unit", "Service", "Install"]
    assert read["Unit"]["Description"] and read["Install"]["WantedBy"] == "multi-user.target"
    assert Path(shlex.split(read["Service"]["ExecStart"])[0]).is_absolute()


def test_the_wearables_unit_starts_a_program_that_is_installed_with_options_that_it_has() -> None:
    service = unit("mcoe-client.service")["Service"]
    program, *options = shlex.split(service["ExecStart"])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(program).name in scripts
    offered = {option for parameter in get_command(app).params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= offered
    assert options[options.index("--dir") + 1] == f"/var/lib/{service['StateDirectory']}"
    assert davis346.__name__.endswith(options[options.index("--device") + 1])
    assert int(service["TimeoutStopSec"]) > 10, "the program ends its children within ten seconds"
