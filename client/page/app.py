"""The wearer's page as a web application. It loads nothing from another host."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from client.consent_text import ConsentTexts
from client.page.access import HEADERS, Guard
from client.page.context import Page
from client.page.day import day_routes
from client.page.entrance import entrance_routes
from client.page.first_visit import first_visit_routes
from client.page.fit import fit_routes
from client.page.labelling import labelling_routes
from client.page.live import live_routes
from client.page.once import PASSING
from client.page.pairing import Pairing
from client.page.privacy import privacy_routes
from client.page.settings import PageSettings
from client.page.wearable_protocol import Wearable
from mcoe_model.errors import DataMissing, McoeError


def make_page(wearable: Wearable, settings: PageSettings, name: str, stopping: asyncio.Event) -> FastAPI:
    """The page of this wearable, which is reached by ``name``."""
    texts = ConsentTexts(settings.consent_texts)
    page = Page(wearable, settings, name, Pairing(settings.folder), stopping, texts)
    app = FastAPI(title="mcoe-client", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def alive() -> dict[str, str]:
        """Whether the page answers; needs no pairing."""
        return {"status": "ok"}

    for routes in (
        entrance_routes, first_visit_routes, fit_routes, day_routes, labelling_routes, live_routes, privacy_routes,
    ):  # fmt: skip
        app.include_router(routes(page))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    @app.exception_handler(McoeError)
    async def say_fault(request: Request, fault: McoeError) -> Response:
        (said, quoted), code = page.say_fault(request, fault), 404 if isinstance(fault, DataMissing) else 409
        if request.url.path.startswith("/api/"):
            passes = isinstance(fault, PASSING)
            answer = {"fault": type(fault).__name__, "said": said, "quoted": quoted, "passes": passes}
            return JSONResponse(answer, code)
        return page.show(request, "fault", said=said, quoted=quoted, code=code)

    def say_on_a_screen(request: Request, key: str, code: int) -> Response:
        return page.show(request, "fault", said=page.words(request)(key), quoted="", code=code)

    @app.exception_handler(HTTPException)
    async def say_that_there_is_none(request: Request, fault: HTTPException) -> Response:
        if request.url.path.startswith(("/api/", "/static/")):
            return await http_exception_handler(request, fault)
        return say_on_a_screen(request, "common.no_page", fault.status_code)

    @app.exception_handler(RequestValidationError)
    async def say_that_it_cannot_be(request: Request, fault: RequestValidationError) -> Response:
        if request.url.path.startswith("/api/"):
            return await request_validation_exception_handler(request, fault)
        return say_on_a_screen(request, "common.no_page", 422)

    @app.exception_handler(Exception)
    async def say_that_it_failed(request: Request, fault: Exception) -> Response:
        """Outside of `Guard`, whose headers it needs all the same."""
        answer = say_on_a_screen(request, "common.failed", 500)
        if request.url.path.startswith("/api/"):
            answer = JSONResponse({"fault": "failed", "said": page.words(request)("common.failed")}, 500)
        answer.headers.update(HEADERS)
        return answer

    app.add_middleware(Guard, pairing=page.pairing, name=name, tls=settings.tls, language=settings.language)
    return app
