"""Every day: recording, what was recorded, the questions that wait, and markers from a stimulus computer."""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from client.page.context import Key, Page
from client.page.entrance import Form, Short

#: What "save the last seconds" saves.
REMEMBERED_S = 15.0


class Which(Form):
    session: Short


class Marker(Form):
    """``text``: what happened, such as a stimulus; ``source``: who says so."""

    text: Annotated[Short, Field(min_length=1)]
    source: Short = "page"


class Question(Form):
    prompt: int


def day_routes(page: Page) -> APIRouter:
    """The first screen, history and questions, and what their buttons do."""
    routes, wearable = APIRouter(), page.wearable

    @routes.get("/")
    async def today(request: Request) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        ended = [session for session in await wearable.history() if session.state != "recording"]
        return page.show(request, "today", status, last=next(iter(ended), None))

    @routes.post("/api/record/start")
    async def start(key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            return {"session": await wearable.start_recording()}

        return await page.post("start", key, act)

    @routes.post("/api/record/stop")
    async def stop(key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            return {"session": await wearable.stop_recording()}

        return await page.post("stop", key, act)

    @routes.post("/api/record/save-last")
    async def save_last(key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            return {"session": await wearable.save_last(REMEMBERED_S)}

        return await page.post("save-last", key, act)

    @routes.get("/history")
    async def history(request: Request) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        return page.show(request, "history", status, sessions=await wearable.history())

    @routes.post("/api/sessions/keep")
    async def keep(form: Which, key: Key) -> dict[str, object]:
        return await page.post("keep", key, lambda: wearable.keep_more(form.session))

    @routes.post("/api/sessions/discard")
    async def discard(form: Which, key: Key) -> dict[str, object]:
        return await page.post("discard", key, lambda: wearable.discard(form.session))

    @routes.get("/questions")
    async def questions(request: Request) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        return page.show(request, "questions", status, prompts=await wearable.prompts())

    @routes.post("/api/questions/snooze")
    async def snooze(form: Question, key: Key) -> dict[str, object]:
        return await page.post("snooze", key, lambda: wearable.snooze(form.prompt))

    @routes.post("/api/markers")
    async def marker(form: Marker, key: Key) -> dict[str, object]:
        """Write down a stimulus. ``device_us`` is the camera's time of it, ``utc`` the wearable's."""

        async def act() -> dict[str, object]:
            device_us = await wearable.marker(form.text, form.source)
            return {"device_us": device_us, "utc": datetime.datetime.now(datetime.UTC).isoformat()}

        return await page.post("marker", key, act)

    return routes
