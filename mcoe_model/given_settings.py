"""Settings as they are given, in a file or as text in the environment: which of them exist and have their type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def kinds_of(settings: type) -> dict[str, type]:
    """The type of every setting of a dataclass of settings, by its default."""
    return {setting.name: type(setting.default) for setting in fields(settings)}


def from_environment(environment: Mapping[str, str], prefix: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """What the variables that begin with ``prefix`` give, by setting; text that means no value stays text."""
    given = {
        variable.removeprefix(prefix).lower(): text
        for variable, text in environment.items()
        if variable.startswith(prefix)
    }
    return {name: _from_text(text, kinds.get(name, str)) for name, text in given.items()}


def fitting(given: Mapping[str, Any], kinds: Mapping[str, type], found: list[str]) -> dict[str, Any]:
    """The settings among these that exist and have their type; faults are added to those found."""
    fit: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            found.append(f"there is no setting {name!r}")
        elif kinds[name] is float and type(value) is int:
            fit[name] = float(value)
        elif type(value) is not kinds[name]:
            found.append(f"{name} must be a {kinds[name].__name__}, not {value!r}")
        else:
            fit[name] = value
    return fit


def _from_text(text: str, kind: type) -> Any:
    """The value that a setting's text means; text that means none stays text, and is then named as a fault."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text
