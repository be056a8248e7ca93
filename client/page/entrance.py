"""The ways in: pairing a phone, choosing a language, unlocking."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from client.consent_text import LANGUAGES
from client.page.access import cookie, remember
from client.page.context import LANGUAGE_COOKIE, Key, Page
from client.page.pairing import PairingRefused
from mcoe_model.errors import DataMissing

Short = Annotated[str, StringConstraints(max_length=200)]


class Form(BaseModel):
    """What a phone sends: these fields and no other."""

    model_config = ConfigDict(extra="forbid")


class Code(Form):
    code: Short


class Language(Form):
    language: Short


class Secret(Form):
    words: Short


def entrance_routes(page: Page) -> APIRouter:
    """Pairing, language and unlock screens."""
    routes = APIRouter()

    @routes.get("/pair")
    async def pair(request: Request) -> Response:
        if page.pairing.knows(cookie(request.headers, page.settings.tls)):
            return RedirectResponse("/", 303)
        return page.show(request, "pair")

    @routes.post("/api/pair")
    async def check(request: Request, form: Code, key: Key) -> Response:
        async def act() -> dict[str, str]:
            return {"token": page.pairing.pair(form.code)}

        try:
            # The key alone brings nobody in: only with the code is an answer that was lost given again.
            token = (await page.post(f"pair {form.code}", key, act))["token"]
        except PairingRefused:
            words, left = page.words(request), page.pairing.tries_left()
            said = words("pair.wrong", left=left) if left else words("pair.no_code")
            return JSONResponse({"fault": "PairingRefused", "said": said}, 403)
        answer = JSONResponse({})
        remember(answer, token, page.settings.tls)
        return answer

    @routes.post("/api/language")
    async def language(form: Language) -> Response:
        if form.language not in LANGUAGES:
            return JSONResponse({"fault": "unknown", "said": ""}, 422)
        answer = JSONResponse({})
        answer.set_cookie(LANGUAGE_COOKIE, form.language, max_age=400 * 86400, samesite="strict", httponly=True,
                          secure=page.settings.tls)  # fmt: skip
        return answer

    @routes.get("/unlock")
    async def unlock(request: Request) -> Response:
        if (await page.wearable.status()).stage != "locked":
            return RedirectResponse("/", 303)
        return page.show(request, "unlock")

    @routes.post("/api/unlock")
    async def open_it(form: Secret, key: Key) -> dict[str, object]:
        return await page.post("unlock", key, lambda: page.wearable.unlock(form.words))

    @routes.post("/api/lock")
    async def lock(request: Request, key: Key) -> Response:
        try:
            return JSONResponse(await page.post("lock", key, page.wearable.lock))
        except DataMissing:
            said = page.words(request)("privacy.no_passphrase")
            return JSONResponse({"fault": "DataMissing", "said": said}, 409)

    return routes
