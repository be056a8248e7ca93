"""The first visit: language, consent, passphrase, and the end of it. Before the passphrase nothing is stored."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import Field

from client.consent_text import LANGUAGES, ConsentText
from client.page.context import Key, Page
from client.page.entrance import Form, Short
from client.said import Said
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import DataInvalid, DiskFull

Kinds = Annotated[list[Short], Field(max_length=len(CONSENTS))]


class SetUp(Form):
    """``passphrase`` None: a key file. ``version``: of the text that was read."""

    kinds: Kinds
    version: Short
    passphrase: Annotated[Short, Field(min_length=8)] | None


class Choice(Form):
    kinds: Kinds
    version: Short


def first_visit_routes(page: Page) -> APIRouter:
    """Welcome, consent, passphrase and done screens; consent comes again when its text changes."""
    routes = APIRouter()

    @routes.get("/welcome")
    async def welcome(request: Request) -> Response:
        if (await page.wearable.status()).stage != "new":
            return RedirectResponse("/", 303)
        return page.show(request, "welcome", languages=LANGUAGES)

    @routes.get("/consent")
    async def consent(request: Request) -> Response:
        status = await page.wearable.status()
        if status.stage == "locked":
            return RedirectResponse("/unlock", 303)
        words = page.words(request)
        given = {one.kind for one in status.consents}
        text, again = page.consent_text(words), page.asked_again(status)
        return page.show(
            request,
            "consent",
            kinds=CONSENTS,
            given=given,
            text=text,
            again=again,
            new=status.stage == "new",
            wearer=status.wearer,
        )

    @routes.get("/consent/copy")
    async def copy(request: Request) -> Response:
        """The text, and what the wearer agreed to so far, to keep."""
        status, words = await page.wearable.status(), page.words(request)
        text = page.consent_text(words)
        lines = [words("consent.copy_of", version=text.version, sha256=text.sha256), "", text.text, ""]
        given = {one.kind: one for one in status.consents}
        for kind in CONSENTS:
            one = given.get(kind)
            said = words("consent.given", time=f"{one.given:%Y-%m-%d %H:%M} UTC", version=one.version) if one else (
                words("consent.not_given")
            )  # fmt: skip
            lines.append(f"{words(f'consent.{kind}')}: {said}")
        headers = {"Content-Disposition": f'attachment; filename="consent-{text.version}-{words.language}.txt"'}
        return Response("\r\n".join(lines) + "\r\n", media_type="text/plain; charset=utf-8", headers=headers)

    @routes.get("/secure")
    async def secure(request: Request) -> Response:
        if (await page.wearable.status()).stage != "new":
            return RedirectResponse("/", 303)
        return page.show(request, "secure", version=page.consent_text(page.words(request)).version)

    @routes.post("/api/set-up")
    async def set_up(request: Request, form: SetUp, key: Key) -> dict[str, object]:
        text = _read(page, request, form.kinds, form.version)

        async def act() -> dict[str, object]:
            return {"recovery": await page.wearable.set_up(form.passphrase, form.kinds, text)}

        return await page.post("set-up", key, act)

    @routes.post("/api/consents")
    async def choose(request: Request, form: Choice, key: Key) -> dict[str, object]:
        """Give what is chosen, and withdraw the rest."""
        text = _read(page, request, form.kinds, form.version)

        async def act() -> None:
            given = {one.kind: one.version for one in (await page.wearable.status()).consents}
            unwritten: list[DiskFull] = []
            for kind in CONSENTS:
                if kind not in form.kinds and kind in given:
                    try:
                        await page.wearable.withdraw(kind)
                    except DiskFull as fault:  # it has ended all the same, and so shall the others
                        unwritten.append(fault)
            if unwritten:
                raise unwritten[0]
            for kind in CONSENTS:
                if kind in form.kinds and given.get(kind) != text.version:
                    await page.wearable.consent(kind, text)

        return await page.post("consents", key, act)

    @routes.get("/ready")
    async def ready(request: Request) -> Response:
        status = await page.daily(request)
        return status if isinstance(status, Response) else page.show(request, "ready", status)

    return routes


def _read(page: Page, request: Request, kinds: list[str], version: str) -> ConsentText:
    """The text that was agreed to. Raises DataInvalid when it is another one by now, and for unknown kinds."""
    text = page.consent_text(page.words(request))
    if version != text.version:
        raise DataInvalid(Said("consent.changed", "the consent text has changed meanwhile; read it again"))
    if set(kinds) - set(CONSENTS):
        raise DataInvalid(f"consents are {', '.join(CONSENTS)}")
    return text
