"""Where settings come from: the TOML file of a data folder, then environment variables, then flags.

``mcoe-server.toml`` holds what differs from the defaults; ``MCOE_SERVER_PORT`` and the like go over it, and flags over
those. A server runs one experiment, or one for each table ``[experiments.NAME]`` of the file, which goes over what
stands above it. What `start` was told is kept for the processes that it starts.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mcoe_model.errors import DataMissing, SettingsError
from mcoe_model.files import read_json, write_json
from mcoe_model.given_settings import fitting, from_environment, kinds_of
from server.aggregation.private_mean import PrivateMean
from server.paths import ServerPaths
from server.settings import ServerSettings

ENVIRONMENT = "MCOE_SERVER_"

#: The type of every setting, and the names of those that all experiments share.
_KINDS = kinds_of(ServerSettings)
_WHOLE = frozenset(setting.name for setting in fields(ServerSettings) if setting.metadata["whole"])


def load_settings(
    paths: ServerPaths,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    experiment: str | None = None,
) -> ServerSettings:
    """The settings of one experiment: the named one, or the only one.

    Raises what `load_experiments` raises, and DataMissing for an experiment that is not there or must be named.
    """
    found = {settings.experiment: settings for settings in load_experiments(paths, flags, environment)}
    if experiment is None and len(found) == 1:
        return next(iter(found.values()))
    if experiment not in found:
        there = f"this server has {', '.join(found)}"
        raise DataMissing(f"{there}; name one with --experiment" if experiment is None else
                          f"there is no experiment {experiment}; {there}")  # fmt: skip
    return found[experiment]


def load_experiments(
    paths: ServerPaths, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[ServerSettings, ...]:
    """The settings of every experiment, in the file's order.

    Defaults, then the TOML file, then its table of the experiment, then the environment, then flags that are not None;
    the last two are for all experiments. Raises DataMissing for a folder that `mcoe-server init` did not make,
    SettingsError with every fault found.
    """
    if not paths.settings.is_file():
        raise DataMissing(f"{paths.folder} holds no server; make one with: mcoe-server init --dir {paths.folder}")
    found: list[str] = []
    written: dict[str, Any] = {}
    try:
        written |= tomllib.loads(paths.settings.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        found.append(f"{paths.settings}: {fault}")
    tables = _tables(written.pop("experiments", None), found)
    over = from_environment(environment, ENVIRONMENT, _KINDS)
    over |= {name: value for name, value in flags.items() if value is not None}
    top = fitting(written | over, _KINDS, found)
    if tables and "experiment" in top:
        found.append("experiment names the only one; it cannot be given beside tables of experiments")
    experiments = [] if tables else [_made(top, found)]
    faults: dict[str, list[str]] = {}
    for name, table in tables.items():
        own = faults[name] = []
        mine = {key: value for key, value in fitting(table, _KINDS, own).items() if not _is_whole(key, own)}
        experiments.append(_made(top | mine | fitting(over, _KINDS, []) | {"experiment": name}, own))
    # What stands above the tables is complete with each of them only; a fault that all of them have is told once.
    shared = [fault for fault in next(iter(faults.values()), []) if all(fault in own for own in faults.values())]
    found += shared
    found += [f"experiment {name}: {fault}" for name, own in faults.items() for fault in own if fault not in shared]
    if found:
        raise SettingsError(found)
    return tuple(settings for settings in experiments if settings is not None)


def _tables(given: Any, found: list[str]) -> dict[str, dict[str, Any]]:
    """The experiments' tables by name; faults are added to those found."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not given or not all(isinstance(table, dict) for table in given.values()):
        found.append("experiments must hold a table for each experiment, such as [experiments.glasses]")
        return {}
    return given


def _is_whole(name: str, found: list[str]) -> bool:
    if name in _WHOLE:
        found.append(f"{name} belongs to the whole server; give it above all tables")
    return name in _WHOLE


def _made(given: Mapping[str, Any], found: list[str]) -> ServerSettings | None:
    """The settings; their faults are added to those found."""
    if given.get("private") and "rule" in given:
        found.append(f"private rounds aggregate by {PrivateMean.name} and nothing else; take out rule")
    try:
        return ServerSettings(**given)
    except SettingsError as fault:
        found += fault.faults
        return None


def write_running(paths: ServerPaths, experiments: Sequence[ServerSettings]) -> None:
    """Tell the server's processes what `start` was told."""
    write_json(paths.folder / "running.json", {"experiments": [asdict(settings) for settings in experiments]})


def read_running(paths: ServerPaths) -> tuple[ServerSettings, ...]:
    """What `start` was told of every experiment."""
    stored = read_json(paths.folder / "running.json")["experiments"]
    return tuple(ServerSettings(**settings) for settings in stored)
