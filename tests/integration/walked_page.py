"""The page behind a stand-in wearable, and a phone that walks through it, for the tests in a real browser."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phone import Phone, a_phone

from client.consent_text import read_consent_text
from client.page.pairing import Pairing
from client.page.serve import serve_page
from client.page.settings import PageSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))  # the stand-in lies beside the page's own tests

from standing_wearable import StandingWearable


@dataclass(frozen=True)
class Walk:
    phone: Phone
    wearable: StandingWearable
    pairing: Pairing

    def choose_language(self, language: str) -> None:
        """On the screen that is open, which asks for it."""
        if self.phone.find("html").get_attribute("lang") == language:
            return  # a press would load the screen again at some moment
        self.phone.press(f"[data-language={language}]")
        self.phone.until(lambda: self.phone.find("html").get_attribute("lang") == language)


@contextmanager
def a_walk(folder: Path) -> Iterator[Walk]:
    """A phone that is not paired, and a new wearable behind the page, which runs in a thread."""
    made: dict[str, object] = {}
    begun = threading.Event()

    async def serve() -> None:
        stopping = asyncio.Event()
        wearable = StandingWearable()
        made.update(wearable=wearable, stopping=stopping, loop=asyncio.get_running_loop())

        def ready(port: int) -> None:
            made["port"] = port
            begun.set()

        await serve_page(wearable, PageSettings(folder, "127.0.0.1", 0), stopping, ready)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(60)
    try:
        with a_phone(f"https://localhost:{made['port']}", folder) as phone:
            yield Walk(phone, made["wearable"], Pairing(folder))  # type: ignore[arg-type]
    finally:
        made["loop"].call_soon_threadsafe(made["stopping"].set)  # type: ignore[attr-defined]
        thread.join(60)


@contextmanager
def a_daily_walk(folder: Path) -> Iterator[Walk]:
    """A paired phone, and a wearable that is set up."""
    with a_walk(folder) as walk:
        asyncio.run(walk.wearable.set_up(None, ["capture", "labels", "learning"], read_consent_text(None, "en")))
        walk.phone.open(f"/pair#{walk.pairing.code()}")
        walk.phone.press("#pair .primary")
        walk.phone.until_at("/")
        yield walk
