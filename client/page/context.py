"""What every route of the page works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from client.consent_text import ConsentText, ConsentTexts
from client.page.once import Once
from client.page.pairing import Pairing
from client.page.rendering import render
from client.page.settings import PageSettings
from client.page.wearable_protocol import Status, Wearable
from client.page.words import Words, chosen_language
from client.said import said_by
from mcoe_model.errors import McoeError

LANGUAGE_COOKIE = "language"
#: Faults that the server's words, or the program's, explain.
_QUOTED = ("fault.DataInvalid", "fault.EnrolmentRefused", "fault.McoeError")

#: What a phone's form is known by, whatever happens to the connection.
Key = Annotated[str, Header(alias="Idempotency-Key", pattern="^[0-9A-Za-z-]{16,64}$")]


@dataclass
class Page:
    """The wearable, and what the page keeps beside it. ``stopping`` ends the phones' event streams."""

    wearable: Wearable
    settings: PageSettings
    name: str
    pairing: Pairing
    stopping: asyncio.Event
    texts: ConsentTexts
    once: Once = field(default_factory=Once)

    def words(self, request: Request) -> Words:
        """In the language of the phone that asks."""
        kept = request.cookies.get(LANGUAGE_COOKIE)
        wanted = request.headers.get("accept-language", "")
        return Words(chosen_language(kept, wanted, self.settings.language))

    def consent_text(self, words: Words) -> ConsentText:
        """What a wearer agrees to, in this language. Raises DataMissing."""
        return self.texts.text(words.language)

    async def post(self, path: str, key: str, act: Callable[[], Awaitable[dict[str, Any] | None]]) -> dict[str, Any]:
        """What a form's act answers, done once for its key."""
        return await self.once(f"{path} {key}", act) or {}

    def show(
        self, request: Request, screen: str, status: Status | None = None, *, code: int = 200, **content: Any
    ) -> HTMLResponse:
        """A screen; with the status it has the strip that says whether it records."""
        words = self.words(request)
        return HTMLResponse(render(screen, screen=screen, t=words, status=status, name=self.name, **content), code)

    async def daily(self, request: Request) -> Status | Response:
        """The status of a wearable that is set up, open and agreed to, else the way to where it becomes so."""
        status = await self.wearable.status()
        if status.stage == "new":
            return RedirectResponse("/welcome", 303)
        if status.stage == "locked":
            return RedirectResponse("/unlock", 303)
        if self.asked_again(status):
            return RedirectResponse("/consent", 303)
        return status

    def asked_again(self, status: Status) -> bool:
        """Whether the wearer agreed to another version of the text than there is now."""
        version = self.texts.version
        return any(consent.version != version for consent in status.consents)

    def say_fault(self, request: Request, fault: McoeError) -> tuple[str, str]:
        """An error in the wearer's language, by the nearest of its kinds, and by its text where that is a `Said`.

        Then what is to be quoted in English: the text of a kind that says too little without it; else empty.
        """
        words, text = self.words(request), said_by(fault)
        keys = (f"fault.{kind.__name__}" for kind in type(fault).__mro__)
        key = next(key for key in keys if words.known(key))
        detail = words.said(text)
        said = f"{words(key)} {detail}" if detail else words(key)
        return said, text if key in _QUOTED and not detail else ""
