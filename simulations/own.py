"""A researcher's own code: found, loaded and written down. Simulations load it; servers and wearables never do.

What can be one's own is in `_OURS`. It is named as ``path/file.py:Name``, or by the name of an entry point in the group
``mcoe.<kind>`` of an installed package. A file is loaded alone: what lies beside it is not found; code of several files
is a package with an entry point. `docs/add_your_own.md` says what each kind has to be, and
``simulations/conformance.py`` tries it.

A run writes down where its code is and the SHA-256 of the file, and every process of it loads that very file: one that
has changed since is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

from mcoe_model.data.representations import REPRESENTATIONS
from mcoe_model.errors import McoeError, NotResumable, SettingsError
from mcoe_model.learning.methods import MethodName
from mcoe_model.networks.presets import PRESETS, add_preset, find_config
from server.aggregation import RULES, add_rule

#: What can be one's own in a federated simulation, and the setting that names it. A comparison of methods against
#: forgetting takes one's own methods (`simulations.continual_settings`).
KINDS: Mapping[str, str] = {
    "model": "model",
    "rule": "rule",
    "data-reader": "data_reader",
    "representation": "representation",
}


@dataclass(frozen=True)
class Own:
    """Where some code is. ``said``: what the settings call it; ``target``: ``file:Name``, or ``module:Name``."""

    kind: str
    said: str
    target: str
    file: str
    sha256: str

    @property
    def label(self) -> str:
        """A short name that no other code has, for caches and model cards."""
        return f"{self.target.rpartition(':')[2][:40]}-{self.sha256[:12]}"


#: What is ours by that name, before anything is added; nobody else's can take its place.
_OURS: Mapping[str, frozenset[str]] = {
    "model": frozenset(PRESETS),
    "rule": frozenset(RULES),
    "data-reader": frozenset(),
    "representation": frozenset(REPRESENTATIONS),
    "method": frozenset(get_args(MethodName)),
}


def is_own(kind: str, said: str) -> bool:
    """Whether this names somebody's own code rather than ours. Loads nothing."""
    ours = said in _OURS[kind] or (kind == "model" and find_config(said) is not None)
    return not ours and (_is_path(said) or said in entry_points(group=_group(kind)).names)


def locate(kind: str, said: str) -> Own:
    """Where the code is that this names. Raises SettingsError when there is none."""
    if _is_path(said):
        file, _, name = said.rpartition(":")
        path, target = Path(file).absolute(), f"{Path(file).absolute()}:{name}"
    else:
        (entry,) = entry_points(group=_group(kind), name=said) or (None,)
        if entry is None:
            raise SettingsError([f"there is no {kind} {said!r}: name path/file.py:Name, or an entry point in "
                                 f"the group {_group(kind)}"])
        path, target = _file_of(entry.module, kind, said), f"{entry.module}:{entry.attr}"
    if not path.is_file():
        raise SettingsError([f"there is no file {path} for the {kind} {said!r}"])
    return Own(kind, said, target, str(path), _sha256(path))


def load(own: Own) -> Any:
    """What the code calls by that name. Raises SettingsError when it cannot be loaded, NotResumable when it changed."""
    path = Path(own.file)
    if not path.is_file() or _sha256(path) != own.sha256:
        raise NotResumable(f"{path}, the {own.kind} of this run, has changed since; put it back, or start anew")
    module, _, name = own.target.rpartition(":")
    try:
        if module != own.file:
            return getattr(importlib.import_module(module), name)
        return getattr(_module_of(path, own.sha256), name)
    except McoeError:
        raise
    except Exception as fault:  # somebody else's code, which may do anything
        why = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise SettingsError([f"the {own.kind} {own.said!r} cannot be loaded: {why}"]) from fault


def make(own: Own, *arguments: Any) -> Any:
    """An instance of it. Raises as `load`."""
    made = load(own)
    try:
        return made(*arguments)
    except McoeError:
        raise
    except Exception as fault:
        why = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise SettingsError([f"the {own.kind} {own.said!r} cannot be made: {why}"]) from fault


def absolute(kind: str, said: str) -> str:
    """The same name wherever the process runs: a file by its whole path."""
    file, _, name = said.rpartition(":")
    return f"{Path(file).absolute()}:{name}" if _is_path(said) else said


def locate_all(settings: Any) -> dict[str, Own]:
    """The own code that settings name, by kind. Raises SettingsError."""
    said = {kind: getattr(settings, field) for kind, field in KINDS.items()}
    return {kind: locate(kind, name) for kind, name in said.items() if name and is_own(kind, name)}


def recorded(run: Mapping[str, Any]) -> dict[str, Own]:
    """The own code of a run, as its record holds it."""
    return {kind: Own(**stored) for kind, stored in run.get("own", {}).items()}


def install(found: Mapping[str, Own]) -> None:
    """Make it known to this process by the name that the settings call it. Raises as `load`."""
    if "rule" in found:
        add_rule(found["rule"].said, make(found["rule"]))
    if "model" in found and found["model"].label not in PRESETS:
        add_preset(found["model"].label, make(found["model"]))


def _is_path(said: str) -> bool:
    file, colon, name = said.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def _group(kind: str) -> str:
    return f"mcoe.{kind.replace('-', '_')}"


def _file_of(module: str, kind: str, said: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise SettingsError([f"the {kind} {said!r} is in the module {module}, which is not there"])
    return Path(spec.origin)


def _module_of(path: Path, sha256: str) -> Any:
    """The module of a file, loaded once in a process under a name that no other file has."""
    name = f"mcoe_own_{path.stem}_{sha256[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look there for their annotations
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
