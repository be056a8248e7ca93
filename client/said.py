"""Sentences that terminals and logs have in English, and the wearer's page in the wearer's language.

Whoever finds something says it in English at once; the page says it anew, from a text of its own (`client/page/texts`)
and the same values. What has no such text, since another machine or the system said it, the page quotes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from mcoe_model.errors import McoeError


class Said(str):
    """A sentence in English. ``key`` names the page's text of it, and ``values`` are what both are about."""

    key: str
    values: Mapping[str, object]

    def __new__(cls, key: str, english: str, /, **values: object) -> Self:
        """``english`` has the names of the values in braces."""
        return cls._made(english.format(**values), key, values)

    @classmethod
    def _made(cls, english: str, key: str, values: Mapping[str, object]) -> Self:
        made = super().__new__(cls, english)
        made.key, made.values = key, values
        return made

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> str:
        """What `reason` has put into an event: a `Said` again if it was one, else English alone."""
        english = str(event.get("why", ""))
        return cls._made(english, str(event["key"]), dict(event["values"])) if "key" in event else english

    def __reduce__(self) -> tuple[object, ...]:  # for copies: the English is formatted already
        return self._made, (str(self), self.key, self.values)


def said_by(fault: McoeError) -> str:
    """The text of an error; a `Said` if it was raised with one."""
    text = fault.args[0] if fault.args else ""
    return text if isinstance(text, str) else str(fault)


def reason(fault: McoeError) -> dict[str, Any]:
    """The text of an error for a line of JSON between two processes: ``why``, and of a `Said` its key and values."""
    text = said_by(fault)
    return {"why": str(text)} | ({"key": text.key, "values": text.values} if isinstance(text, Said) else {})
