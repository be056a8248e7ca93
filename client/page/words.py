"""What the page says, in each language, from text files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from client.consent_text import LANGUAGES
from client.said import Said

FOLDER = Path(__file__).parent / "texts"


class Words:
    """The words of one language. Called with a key, such as ``today.start``, and what its braces stand for."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = texts(language)

    def __call__(self, key: str, **values: object) -> str:
        written = {name: self._written(value) for name, value in values.items()}
        return self._texts[key].format(**written) if written else self._texts[key]

    def known(self, key: str) -> bool:
        return key in self._texts

    def said(self, what: str) -> str:
        """A `Said` in this language; empty for what is in English alone."""
        return self(what.key, **what.values) if isinstance(what, Said) and self.known(what.key) else ""

    def _written(self, value: object) -> object:
        return _German(value) if self.language == "de" and isinstance(value, float) else value

    def below(self, *starts: str) -> dict[str, str]:
        """The texts whose keys begin so, for a page's scripts."""
        return {key: text for key, text in self._texts.items() if key.startswith(starts)}


class _German(float):
    """A number with a decimal comma."""

    def __format__(self, form: str) -> str:
        return super().__format__(form).replace(".", ",")


@cache
def texts(language: str) -> Mapping[str, str]:
    """Every text of a language by its dotted key."""
    return dict(_flat("", tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))))


def chosen_language(kept: str | None, accepted: str, otherwise: str) -> str:
    """The language that the phone keeps, else the first of ``Accept-Language`` that there is, else ``otherwise``."""
    if kept in LANGUAGES:
        return kept
    wanted = (entry.split(";")[0].strip()[:2].lower() for entry in accepted.split(","))
    return next((language for language in wanted if language in LANGUAGES), otherwise)


def _flat(start: str, table: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in table.items():
        found += _flat(f"{start}{name}.", value) if isinstance(value, dict) else [(f"{start}{name}", value)]
    return found
