"""The wearer's page as a web application. It loads nothing from another host."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from client.consent_text import ConsentTexts
from client.page.access import Guard
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
from client.page.rendering import render
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
        said, code = page.say_fault(request, fault), 404 if isinstance(fault, DataMissing) else 409
        if request.url.path.startswith("/api/"):
            passes = isinstance(fault, PASSING)
            return JSONResponse({"fault": type(fault).__name__, "said": said, "passes": passes}, code)
        return HTMLResponse(render("fault", screen="fault", t=page.words(request), status=None, said=said), code)

    app.add_middleware(Guard, pairing=page.pairing, name=name, tls=settings.tls)
    return app
