"""A property: a name, and a function that looks whether some code has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Broken(Exception):
    """The property that is tried does not hold; says what was expected and what was found."""


class Checked(NamedTuple):
    """A property and why it does not hold; empty where it does."""

    property: str
    fault: str


#: Makes an instance of the code that is tried.
Fresh = Callable[[], Any]
#: Looks for a property; raises Broken, or whatever the code raises.
Property = Callable[[Fresh], None]
Properties = Mapping[str, Property]


def tried(name: str, property_of: Property, fresh: Fresh) -> Checked:
    """Whether it has the property. What the code raises is its fault, in one line."""
    try:
        property_of(fresh)
    except Broken as fault:
        return Checked(name, str(fault))
    except Exception as fault:  # somebody else's code, which may do anything
        return Checked(name, " ".join(f"it raised {type(fault).__name__}: {fault}".split()))
    return Checked(name, "")


def expect(holds: bool, otherwise: str) -> None:
    """Raises Broken, saying what was expected, unless it holds."""
    if not holds:
        raise Broken(otherwise)
