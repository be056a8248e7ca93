"""What code of somebody's own has to be, as properties that are tried one after the other; a file for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcoe_model.errors import SettingsError
from simulations.conform import methods, models, readers, representations, rules
from simulations.conform.properties import Checked, Properties, tried
from simulations.own import Own, make

__all__ = ["KINDS", "Checked", "check"]

_PROPERTIES: Mapping[str, Properties] = {
    "model": models.PROPERTIES,
    "rule": rules.PROPERTIES,
    "data-reader": readers.PROPERTIES,
    "representation": representations.PROPERTIES,
    "method": methods.PROPERTIES,
}
KINDS = tuple(_PROPERTIES)


def check(own: Own, data: Path | None = None) -> list[Checked]:
    """Every property of some code. Each is tried on a fresh instance; ``data`` is what a reader is made with.

    Raises SettingsError when the code cannot be loaded or made at all.
    """
    if own.kind == "data-reader" and data is None:
        raise SettingsError(["a data-reader is tried on data: add --data PATH"])

    def fresh() -> Any:
        if own.kind == "method":
            return make(own, *methods.beginning())
        return make(own, *((data,) if own.kind == "data-reader" else ()))

    fresh()
    return [tried(name, property_of, fresh) for name, property_of in _PROPERTIES[own.kind].items()]
