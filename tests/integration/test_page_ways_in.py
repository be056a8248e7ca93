"""The screens before the wearable is open, in a real browser: pairing, the first visit, unlocking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from walked_page import Walk, a_walk

PASSPHRASE = "seven quiet lanterns"


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with a_walk(tmp_path_factory.mktemp("page")) as walk:
        yield walk


@pytest.mark.parametrize(("language", "zoom"), [("en", 1), ("de", 1), ("de", 2)])
def test_every_way_in_fits_can_be_tapped_and_read_out(walk: Walk, language: str, zoom: int) -> None:
    phone = walk.phone
    phone.zoom(zoom)

    def look(screen: str) -> None:
        assert phone.find("html").get_attribute("lang") == language
        phone.look(f"{language}-{zoom}-{screen}")

    def refused(by: str) -> None:
        phone.press(by)
        phone.until(lambda: phone.find(".wrong").is_displayed() and phone.text(".wrong"))

    walk.pairing.unpair()
    code = walk.pairing.code()
    phone.open("/")
    phone.until_at("/pair")
    walk.choose_language(language)
    look("pair")
    phone.type("#code", "none-such")
    refused("#pair .primary")
    look("pair-refused")
    phone.find("#code").clear()
    phone.type("#code", code)
    phone.press("#pair .primary")
    phone.until_at("/welcome")
    look("welcome")
    phone.press("a.primary")
    phone.until_at("/consent")
    look("consent-first")
    phone.press("#kind-labels")
    phone.press("#consent > .primary")
    phone.until_at("/secure")
    look("secure")
    phone.press("[for=by-keyfile]")
    phone.until(lambda: not phone.find("#passphrase").is_displayed())
    look("secure-keyfile")
    phone.press("[for=by-passphrase]")
    phone.type("#passphrase", PASSPHRASE)
    phone.type("#repeated", "another one")
    refused("#secure > .primary")
    look("secure-refused")
    phone.find("#repeated").clear()
    phone.type("#repeated", PASSPHRASE)
    phone.press("#secure > .primary")
    phone.until(lambda: phone.find("#recovery").is_displayed())
    look("recovery")
    phone.press("#noted")
    phone.press("#go-on")
    phone.until_at("/ready")
    asyncio.run(walk.wearable.lock())
    phone.open("/")
    phone.until_at("/unlock")
    look("unlock")
    phone.type("#secret", "no such words")
    refused("#unlock .primary")
    look("unlock-refused")
    phone.find("#secret").clear()
    phone.type("#secret", PASSPHRASE)
    phone.press("#unlock .primary")
    phone.until_at("/")
    asyncio.run(walk.wearable.forget())
    assert phone.complaints() == []


def test_the_order_of_the_focus_is_that_of_the_screen_before_it_is_open_too(walk: Walk) -> None:
    phone = walk.phone
    phone.zoom(2)
    phone.open("/welcome")
    assert phone.tab(4)[1:] == ["English", "Deutsch", phone.text("a.primary")]
    walk.wearable.change(stage="locked")
    phone.open("/unlock")
    assert phone.tab(4)[1:3] == ["secret", "show"]
    walk.wearable.change(stage="new")
    walk.pairing.unpair()
    phone.open("/pair")
    assert phone.tab(5)[1:2] == ["code"]
    phone.type("#code", walk.pairing.code())
    phone.press("#pair .primary")
    phone.until_at("/welcome")
    phone.zoom(1)
