"""What a wearer decides about the data: consents, a copy of everything, which phones, and forgetting."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import StringConstraints

from client.page.access import cookie
from client.page.context import Key, Page
from client.page.entrance import Form, Short
from client.said import Said
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import DataInvalid, OutputExists
from mcoe_model.invitation import Invitation


class Kind(Form):
    kind: Short


class Line(Form):
    """``line``: an invitation, as it was given to the wearer."""

    line: Annotated[str, StringConstraints(max_length=1000)]


class Sure(Form):
    """``wearer``: the code that the wearer typed in to show that it is meant."""

    wearer: Short


def privacy_routes(page: Page) -> APIRouter:
    """The privacy screen and what its buttons do."""
    routes, wearable = APIRouter(), page.wearable

    @routes.get("/privacy")
    async def privacy(request: Request) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        given = {consent.kind: consent for consent in status.consents}
        version = page.consent_text(page.words(request)).version
        return page.show(
            request, "privacy", status, kinds=CONSENTS, given=given, version=version, phones=page.pairing.phones()
        )

    @routes.post("/api/withdraw")
    async def withdraw(form: Kind, key: Key) -> dict[str, object]:
        return await page.post("withdraw", key, lambda: wearable.withdraw(form.kind))

    @routes.post("/api/agree")
    async def agree(request: Request, form: Kind, key: Key) -> dict[str, object]:
        text = page.consent_text(page.words(request))
        return await page.post("agree", key, lambda: wearable.consent(form.kind, text))

    @routes.post("/api/join")
    async def join(form: Line, key: Key) -> dict[str, object]:
        async def act() -> None:
            try:
                invitation = Invitation.from_line(form.line)
            except DataInvalid as fault:
                raise DataInvalid(Said("privacy.no_invitation", "this is no invitation")) from fault
            try:
                await wearable.join(invitation)
            except OutputExists as fault:
                raise DataInvalid(Said("privacy.member", "this wearable is a member already")) from fault

        return await page.post("join", key, act)

    @routes.get("/export.zip")
    async def export(request: Request) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        named = f"{status.wearer}-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.zip"
        headers = {"Content-Disposition": f'attachment; filename="{named}"'}
        portions = wearable.export()
        first = await anext(portions, b"")  # what is refused is refused before the download begins
        return StreamingResponse(_chained(first, portions), media_type="application/zip", headers=headers)

    @routes.post("/api/phones/unpair-others")
    async def unpair_others(request: Request, key: Key) -> dict[str, object]:
        async def act() -> None:
            page.pairing.unpair(but=cookie(request.headers, page.settings.tls))

        return await page.post("unpair", key, act)

    @routes.post("/api/forget")
    async def forget(form: Sure, key: Key) -> dict[str, object]:
        async def act() -> None:
            if form.wearer.strip().lower() != str((await wearable.status()).wearer).lower():
                raise DataInvalid(Said("privacy.wrong_code", "the code does not fit; nothing was deleted"))
            await wearable.forget()
            page.pairing.unpair()

        return await page.post("forget", key, act)

    return routes


async def _chained(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for portion in others:
        yield portion
