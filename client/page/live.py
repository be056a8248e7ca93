"""What changes while the page is open: the strip that says whether it records, and live recognition."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from client.page.access import cookie
from client.page.context import Key, Page
from client.page.rendering import render
from client.page.wearable_protocol import Status
from client.page.words import Words
from mcoe_model.names import EMOTIONS


def live_routes(page: Page) -> APIRouter:
    """The stream of events, the live screen, and the choice between two models."""
    routes, wearable = APIRouter(), page.wearable

    @routes.get("/events", response_class=EventSourceResponse)
    async def events(request: Request) -> AsyncIterator[ServerSentEvent]:
        """The parts of a screen whenever they have changed: what scripts need, the strip, live recognition.

        Until the phone is paired no more: what comes then may be of another wearer.
        """
        words, shown = page.words(request), dict[str, str]()
        token = cookie(request.headers, page.settings.tls)
        async for status in _until(page.stopping, wearable.changes()):
            if not page.pairing.knows(token):
                return
            for name, part in _parts(status, words).items():
                if shown.get(name) != part:
                    shown[name] = part
                    yield ServerSentEvent(raw_data=part, event=name)
            now = _facts(status, words)
            if shown.get("facts") != str(now):
                shown["facts"] = str(now)
                yield ServerSentEvent(data=now | {"recorded_s": _recorded_s(status)}, event="facts")

    @routes.get("/live")
    async def live(request: Request) -> Response:
        status = await page.daily(request)
        return status if isinstance(status, Response) else page.show(request, "live", status, emotions=EMOTIONS)

    @routes.post("/api/model/keep")
    async def keep(key: Key) -> dict[str, object]:
        return await page.post("keep-model", key, wearable.keep_model)

    @routes.post("/api/model/take")
    async def take(key: Key) -> dict[str, object]:
        return await page.post("take-model", key, wearable.take_model)

    return routes


def _parts(status: Status, words: Words) -> dict[str, str]:
    """HTML by the element that it fills."""
    return {
        "strip": render("parts/strip", t=words, status=status),
        "live": render("parts/live", t=words, status=status, emotions=EMOTIONS),
        "model": render("parts/model", t=words, status=status),
        "learning": render("parts/learning", t=words, status=status),
    }


def _facts(status: Status, words: Words) -> dict[str, Any]:
    return {
        "stage": status.stage,
        "recording": status.recording.session if status.recording else None,
        "refusal": status.refusal,
        "prompts": status.prompts,
        "newer": status.model is not None and status.model.newer is not None,
        "before": status.model is not None and status.model.before is not None,
        "no_room": words.said(status.no_room),
        "remembered_s": int(status.remembered_s),
    }


def _recorded_s(status: Status) -> float:
    """Seconds that the recording under way has lasted; a phone's clock may be another."""
    if status.recording is None:
        return 0.0
    return (datetime.datetime.now(datetime.UTC) - status.recording.since).total_seconds()


async def _until(stopping: asyncio.Event, changes: AsyncIterator[Status]) -> AsyncIterator[Status]:
    """What changes, until the page stops."""
    stopped = asyncio.ensure_future(stopping.wait())
    following = asyncio.ensure_future(anext(changes))
    try:
        while True:
            await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
            following = asyncio.ensure_future(anext(changes))
    finally:
        stopped.cancel()
        following.cancel()
