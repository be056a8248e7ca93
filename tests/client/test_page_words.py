"""What the page says: every language has every text, every text is used, and every text that is used is there."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
from said_calls import said_calls

import mcoe_model.errors
from client.consent_text import LANGUAGES
from client.page.pairing import PairingRefused
from client.page.wearable_protocol import OTHER, SKIP, Check, LearningState, Refusal
from client.page.words import Words, chosen_language, texts
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import McoeError
from mcoe_model.names import EMOTIONS

PAGE = Path(mcoe_model.errors.__file__).parents[1] / "client" / "page"
#: Keys that are put together while the page runs.
COMPOSED = {
    *(f"emotion.{name}" for name in (*EMOTIONS, OTHER, SKIP)),
    *(f"consent.{kind}" for kind in CONSENTS),
    *(f"consent.about_{kind}" for kind in CONSENTS),
    *(f"refusal.{reason}" for reason in get_args(Refusal) if reason != "recording"),
    *(f"fit.js.{check}" for check in get_args(Check)),
    *(f"learning.{state}" for state in get_args(LearningState)),
    *(f"fit.{slider}" for slider in ("rotation", "side", "x", "y")),
}


def used() -> set[str]:
    """Every key that a template, a script or a route names, and of what is said elsewhere in the program."""
    found = {key for key, _ in said_calls()}
    for path in [*PAGE.rglob("*.j2"), *PAGE.rglob("*.js"), *PAGE.rglob("*.py")]:
        found |= set(re.findall(r"""["']([a-z_]+(?:\.js)?\.[A-Za-z_-]+)["']""", path.read_text(encoding="utf-8")))
    return found


def test_languages_say_the_same_things() -> None:
    first = texts(LANGUAGES[0])
    for language in LANGUAGES[1:]:
        assert texts(language).keys() == first.keys()
        for key, text in texts(language).items():
            names = [{name for _, name, _, _ in Formatter().parse(one)} for one in (text, first[key])]
            assert names[0] == names[1], key


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    known = set(texts("en"))
    assert {key for key, _ in said_calls()} - known == set()
    faults = {key for key in known if key.startswith("fault.")}
    assert known - faults - COMPOSED - used() == set()
    assert COMPOSED - known == set()
    sections = {key.split(".")[0] for key in known}
    named = {key for key in used() if key.split(".")[0] in sections and not key.endswith((".js", "_"))}
    assert named - known == set()


def test_what_is_said_in_the_code_has_the_values_of_its_texts() -> None:
    for key, names in said_calls():
        assert {name for _, name, _, _ in Formatter().parse(texts("en")[key]) if name} <= names, key


def test_faults_are_those_that_there_are() -> None:
    classes = {name for name, value in vars(mcoe_model.errors).items() if isinstance(value, type)}
    named = {key.removeprefix("fault.") for key in texts("en") if key.startswith("fault.")}
    assert "McoeError" in named <= classes
    assert issubclass(PairingRefused, McoeError)


@pytest.mark.parametrize(
    ("kept", "accepted", "language"),
    [(None, "", "de"), (None, "de-AT,de;q=0.9,en;q=0.8", "de"), (None, "fr, en;q=0.5", "en"), ("en", "de", "en"),
     ("xx", "fr", "de")],
)  # fmt: skip
def test_the_phones_language_is_taken(kept: str | None, accepted: str, language: str) -> None:
    assert chosen_language(kept, accepted, "de") == language


def test_values_take_the_place_of_braces() -> None:
    assert Words("en")("pair.wrong", left=3) == "This is not the code. Tries left: 3"
    assert Words("de").below("try.js.").keys() == {"try.js.counts"}
    long, lang = (Words(one)("label.outside", seconds=2.5) for one in ("en", "de"))
    assert "2.5 seconds" in long and "2,5 Sekunden" in lang
