"""Saying what a recording shows: replay, seven emotions or other or skip, trim, undo, and again later."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import Field

from client.page.context import Key, Page
from client.page.entrance import Form, Short
from client.page.fit import replay_response
from client.page.wearable_protocol import OTHER, SKIP, Session, Span
from mcoe_model.names import EMOTIONS

#: Seconds that a labelled span may last, and that are replayed at a time.
LONGEST_S = 30.0

Microseconds = Annotated[int, Field(ge=0)]


class Label(Form):
    span: int
    label: Literal["angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "other", "skip"]
    intensity: Annotated[int, Field(ge=1, le=5)] | None


class Bounds(Form):
    span: int
    start_us: Microseconds
    end_us: Microseconds


class Part(Form):
    session: Short
    start_us: Microseconds
    end_us: Microseconds


class WhichSpan(Form):
    span: int


def labelling_routes(page: Page) -> APIRouter:
    """The label screen of a session, its replay, and what its buttons do."""
    routes, wearable = APIRouter(), page.wearable

    @routes.get("/label/{session_id}")
    async def label_screen(request: Request, session_id: str, span: int | None = None) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        session = await wearable.session(session_id)
        if session.state == "recording":
            return RedirectResponse("/", 303)
        return page.show(
            request,
            "label",
            status,
            session=session,
            span=_chosen(session, span),
            answers=(*EMOTIONS, OTHER, SKIP),
            longest=LONGEST_S,
        )

    @routes.get("/api/replay/{session_id}")
    async def replay(session_id: str, from_us: Microseconds, to_us: Microseconds) -> Response:
        return await replay_response(await wearable.preview_span(session_id, from_us, to_us))

    @routes.post("/api/label")
    async def label(form: Label, key: Key) -> dict[str, object]:
        """The span as it is now, with what the model took it for: only here, after the wearer has chosen."""

        async def act() -> dict[str, object]:
            return _plain(await wearable.label(form.span, form.label, form.intensity, f"label {key}"))

        return await page.post("label", key, act)

    @routes.post("/api/label/undo")
    async def undo(form: WhichSpan, key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            return _plain(await wearable.undo(form.span, f"undo {key}"))

        return await page.post("undo", key, act)

    @routes.post("/api/label/trim")
    async def trim(form: Bounds, key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            return _plain(await wearable.trim(form.span, form.start_us, form.end_us, f"trim {key}"))

        return await page.post("trim", key, act)

    @routes.post("/api/spans")
    async def add(form: Part, key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            bounds = form.start_us, form.end_us
            return {"span": await wearable.add_span(form.session, *bounds, f"add-span {key}")}

        return await page.post("add-span", key, act)

    @routes.post("/api/spans/discard")
    async def discard(form: WhichSpan, key: Key) -> dict[str, object]:
        return await page.post("discard-span", key, lambda: wearable.discard_span(form.span))

    return routes


def _chosen(session: Session, wanted: int | None) -> Span | None:
    """The span that was asked for, else the first without a label, else the first; None for a session without any."""
    named = [span for span in session.spans if span.id == wanted]
    unlabelled = [span for span in session.spans if span.label is None]
    return next(iter([*named, *unlabelled, *session.spans]), None)


def _plain(span: Span) -> dict[str, object]:
    predicted = span.predicted if span.label is not None else None
    return {"span": span.id, "label": span.label, "intensity": span.intensity, "predicted": predicted,
            "versions": span.versions, "start_us": span.start_us, "end_us": span.end_us}  # fmt: skip
