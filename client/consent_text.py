"""The text that a wearer agrees to, as the coordinator of a study supplies it, in the wearer's language.

A folder holds one file for each language, ``en.txt`` and so on: its first line is the version, the rest the text.
Without such a folder the texts of this package are used, which are meant for trying the product out.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcoe_model.errors import DataInvalid, DataMissing, McoeError

LANGUAGES = ("en", "de")
_OURS = Path(__file__).parent / "page" / "consent"
_VERSION = re.compile(r"[0-9A-Za-z._-]{1,32}")

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class ConsentText:
    """``version`` names the text: where it changes, wearers are asked again."""

    version: str
    language: str
    text: str

    @property
    def sha256(self) -> str:
        """Of version and text, 64 hex digits."""
        return hashlib.sha256(f"{self.version}\n{self.text}".encode()).hexdigest()


def read_consent_text(folder: Path | None, language: str) -> ConsentText:
    """The text in this language from the coordinator's folder, or ours when there is none.

    Raises DataMissing for a language that the folder lacks, DataInvalid for a file without a version and a text.
    """
    path = (folder or _OURS) / f"{language}.txt"
    try:
        version, _, text = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError as fault:
        raise DataMissing(f"there is no consent text {path}; the coordinator of the study supplies it") from fault
    except UnicodeDecodeError as fault:
        raise DataInvalid(f"the consent text {path} is not UTF-8; save it again") from fault
    if not _VERSION.fullmatch(version.strip()) or not text.strip():
        raise DataInvalid(f"the consent text {path} needs its version, such as 2026-1, in a line before it")
    return ConsentText(version.strip(), language, text.strip())


def read_consent_texts(folder: Path | None) -> dict[str, ConsentText]:
    """The texts in every language that the folder has, which are of one version.

    Raises DataMissing when it has none, DataInvalid for versions that differ and as `read_consent_text`.
    """
    here = [language for language in LANGUAGES if ((folder or _OURS) / f"{language}.txt").exists()]
    texts = {language: read_consent_text(folder, language) for language in here or LANGUAGES[:1]}
    versions = {text.version for text in texts.values()}
    if len(versions) > 1:
        named = ", ".join(f"{language}.txt is {text.version}" for language, text in texts.items())
        raise DataInvalid(f"the consent texts are of different versions ({named}); give all languages the same one")
    return texts


class ConsentTexts:
    """The texts as they are at each look. While they are being exchanged and do not fit, those before still count."""

    def __init__(self, folder: Path | None) -> None:
        """Raises as `read_consent_texts`."""
        self._folder = folder
        self._texts: Mapping[str, ConsentText] = read_consent_texts(folder)
        self._fault = ""

    @property
    def version(self) -> str:
        """What wearers are asked for now."""
        return next(iter(self._look().values())).version

    def text(self, language: str) -> ConsentText:
        """Raises DataMissing for a language that the folder lacks."""
        found = self._look().get(language)
        return found if found is not None else read_consent_text(self._folder, language)

    def _look(self) -> Mapping[str, ConsentText]:
        try:
            self._texts, fault = read_consent_texts(self._folder), ""
        except McoeError as raised:
            fault = type(raised).__name__
        if fault and fault != self._fault:  # its text may name a path
            log.warning("the consent texts cannot be used (%s): those before count; see: mcoe-client doctor", fault)
        self._fault = fault
        return self._texts
