"""The grid of a study: which runs it declares, as a TOML file, checked whole before any of them begins.

A study has a reference, run under every seed, and factors that change one setting of it at a time. What a run changes
of the reference decides what it can share with it: the same base model, and the same lines to compare with.
"""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcoe_model.errors import DataMissing, SettingsError
from simulations.settings import make_settings

_COMMAND = "simulations/see_by_subject.py"
#: What a factor can change beside what it is about, from nothing on; each includes those before it.
CHANGES = ("rounds", "upper", "base")


@dataclass(frozen=True)
class Factor:
    """One setting, or a few that go together, varied over ``values`` beside the reference's own.

    - ``changes``: ``rounds`` (the default) shares the reference's base model and upper line; ``upper`` shares the base
      alone, for what changes centralised training too; ``base`` shares nothing.
    """

    says: str
    values: tuple[Mapping[str, Any], ...]
    changes: str = "rounds"


@dataclass(frozen=True)
class Included:
    """Another command of the simulations, run once: the page shows the table and the figures that it writes."""

    says: str
    run: tuple[str, ...]
    table: str
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A declared study. Every run is paired with the reference's of the same seed."""

    name: str
    says: str
    seeds: tuple[int, ...]
    reference: Mapping[str, Any]
    factors: tuple[Factor, ...] = ()
    included: tuple[Included, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run of a study: which settings it changes under which seed, and what it shares. ``name`` is its folder's."""

    name: str
    seed: int
    changed: Mapping[str, Any]
    changes: str

    @property
    def reference(self) -> bool:
        return not self.changed


def read_grid(path: Path) -> Grid:
    """The grid in a file. Raises DataMissing or SettingsError, which names every fault."""
    if not path.is_file():
        raise DataMissing(f"there is no grid {path}; studies/ holds examples")
    try:
        return make_grid(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise SettingsError([f"{path} is not TOML: {fault}"]) from fault


def make_grid(raw: Mapping[str, Any]) -> Grid:
    """The grid that a TOML file's content declares. Raises SettingsError, which names every fault."""
    faults: list[str] = []
    known = {"name", "says", "seeds", "reference", "factor", "command"}
    faults += [f"unknown key {key!r}; a grid has {', '.join(sorted(known))}" for key in raw.keys() - known]
    seeds = raw.get("seeds", [])
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        faults.append("seeds must be a list of whole numbers, with at least one")
        seeds = []
    if len(set(seeds)) != len(seeds):
        faults.append("seeds must be different ones")
    reference = _keys(raw.get("reference", {}))
    factors = [_part(Factor, one, faults) for one in raw.get("factor", [])]
    included = [_part(Included, one, faults) for one in raw.get("command", [])]
    grid = Grid(
        str(raw.get("name", "study")),
        str(raw.get("says", "")),
        tuple(seeds),
        reference,
        tuple(factor for factor in factors if factor),
        tuple(one for one in included if one),
    )
    for changed in [{}, *(value for factor in grid.factors for value in factor.values)]:
        faults += _faults_of(reference, changed)
    faults += [
        f"factor {factor.says!r}: changes must be one of {', '.join(CHANGES)}, not {factor.changes!r}"
        for factor in grid.factors
        if factor.changes not in CHANGES
    ]
    faults += [
        f"factor {factor.says!r}: over all folds there is no one base to share; changes must be base"
        for factor in grid.factors
        if factor.changes != "base" and any(one.get("fold") == "all" for one in (reference, *factor.values))
    ]
    if faults:
        raise SettingsError(faults)
    return grid


def runs_of(grid: Grid) -> tuple[Run, ...]:
    """Every run once, the references first: two factors that declare the same one share it."""
    found: dict[str, Run] = {}
    nothing: Mapping[str, Any] = {}
    for changes, changed in [("base", nothing), *((f.changes, value) for f in grid.factors for value in f.values)]:
        for seed in grid.seeds:
            run = Run(f"{_slug(changed)}-seed-{seed}", seed, changed, changes)
            found.setdefault(run.name, run)
    return tuple(found.values())


def command_of(grid: Grid, run: Run, runs: Path) -> list[str]:
    """The arguments of the command that makes a run below ``runs``, without its output folder."""
    settings = {**grid.reference, **run.changed, "seed": run.seed}
    if not run.reference and run.changes != "base":
        settings["base"] = str(runs / f"{_slug({})}-seed-{run.seed}" / "arms" / "base.safetensors")
    settings.setdefault("baselines", "off" if run.changes == "rounds" else "on")
    return [_COMMAND, *flags(settings)]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags of the command line."""
    found = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
        else:
            found += [flag, str(value)]
    return found


def in_words(changed: Mapping[str, Any]) -> str:
    """What a run changes, as a table says it."""
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in changed.items()) or "reference"


def shell(arguments: Sequence[str]) -> str:
    """A command as it is typed."""
    return shlex.join(["python", *arguments])


def _slug(changed: Mapping[str, Any]) -> str:
    text = in_words(changed).replace(", ", "--").replace(" ", "-")
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in text)


def _keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in settings.items()}


def _faults_of(reference: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of a run; the study itself says seeds and base."""
    ours = [
        f"{name} is the study's own to say" for name in ("seed", "base", "workers") if name in {**reference, **changed}
    ]
    try:
        make_settings("quick", reference, changed)
    except SettingsError as fault:
        return ours + [f"{in_words(changed)}: {one}" for one in fault.faults]
    return ours


def _part(kind: type[Any], raw: Any, faults: list[str]) -> Any:
    """A factor or an included command from its table; None, with its faults noted, when it is not one."""
    names = {field.name for field in dataclasses.fields(kind)}
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    table = "factor" if kind is Factor else "command"
    if not isinstance(raw, dict) or raw.keys() - names or needed - raw.keys():
        faults.append(
            f"[[{table}]] must have {', '.join(sorted(needed))} and may have {', '.join(sorted(names - needed))}"
        )
        return None
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    if kind is Factor:
        if not given["values"] or not all(isinstance(value, dict) and value for value in given["values"]):
            faults.append(
                f"[[factor]] {given['says']!r}: values must be tables of settings, such as {{ rule = 'median' }}"
            )
            return None
        given["values"] = tuple(_keys(value) for value in given["values"])
    return kind(**given)
