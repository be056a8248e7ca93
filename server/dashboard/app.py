"""The dashboard's web application: guard, pages, API, metrics. It loads nothing from another host."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from mcoe_model.errors import DataMissing, McoeError
from server.dashboard.access import Guard
from server.dashboard.api import api_routes
from server.dashboard.context import Dashboard
from server.dashboard.health import Doctor
from server.dashboard.pages import error_page, page_routes
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.settings import ServerSettings


def dashboard_app(
    registries: Sequence[Registry],
    artifacts: Artifacts,
    paths: ServerPaths,
    running: Sequence[ServerSettings],
    token: str,
) -> FastAPI:
    """The dashboard of these experiments, with the settings of each.

    An only one has its pages at the top, several have them below ``/experiments/NAME``. Setting ``app.state.stopping``
    ends the open pages' event streams.
    """
    doctor, stopping = Doctor(registries[0].engine, paths, running), threading.Event()
    names = [registry.experiment for registry in registries]
    roots = {name: "" if len(names) == 1 else f"/experiments/{name}" for name in names}
    dashboards = [
        Dashboard(registry, artifacts, paths, settings, token, doctor, roots, stopping)
        for registry, settings in zip(registries, running, strict=True)
    ]
    app = FastAPI(
        title="mcoe-server",
        version="1",
        description="What the fleet does. Read-only; every route but /health asks for the dashboard's token.",
        docs_url=None,  # these two pages load their scripts from another host
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.stopping = stopping

    @app.get("/health")
    def alive() -> dict[str, str]:
        """Whether the dashboard answers; needs no token."""
        return {"status": "ok"}

    @app.get("/api/v1/experiments")
    def experiments() -> dict[str, str]:
        """Every experiment by its name, and what stands before the addresses of its answers and pages."""
        return roots

    for dashboard in dashboards:
        app.include_router(page_routes(dashboard), prefix=dashboard.root, include_in_schema=False)
        app.include_router(api_routes(dashboard), prefix=dashboard.root)
    if len(dashboards) > 1:

        @app.get("/", include_in_schema=False)
        def first() -> Response:
            return RedirectResponse(f"{dashboards[0].root}/", 303)

    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    @app.exception_handler(McoeError)
    def say_fault(request: Request, fault: McoeError) -> Response:
        code = 404 if isinstance(fault, DataMissing) else 500
        if "/api/" in request.url.path:
            return JSONResponse({"detail": str(fault)}, code)
        asked = next((one for one in dashboards if request.url.path.startswith(f"{one.root}/")), dashboards[0])
        return error_page(asked, str(fault), code)

    app.add_middleware(Guard, token=token)
    return app
