"""The dashboard's web application: guard, pages, API, metrics. It loads nothing from another host."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from mcoe_model.errors import DataMissing, McoeError
from server.dashboard.access import Guard
from server.dashboard.api import api_routes
from server.dashboard.context import Dashboard
from server.dashboard.pages import error_page, page_routes
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.settings import ServerPaths, ServerSettings


def dashboard_app(
    registry: Registry, artifacts: Artifacts, paths: ServerPaths, settings: ServerSettings, token: str
) -> FastAPI:
    """The dashboard of one experiment. Setting ``app.state.dashboard.stopping`` ends the open pages' event streams."""
    dashboard = Dashboard(registry, artifacts, paths, settings, token)
    app = FastAPI(
        title="mcoe-server",
        version="1",
        description="What the fleet does. Read-only; every route but /health asks for the dashboard's token.",
        docs_url=None,  # these two pages load their scripts from another host
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.dashboard = dashboard
    app.include_router(page_routes(dashboard), include_in_schema=False)
    app.include_router(api_routes(dashboard))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    @app.exception_handler(McoeError)
    def say_fault(request: Request, fault: McoeError) -> Response:
        code = 404 if isinstance(fault, DataMissing) else 500
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": str(fault)}, code)
        return error_page(dashboard, str(fault), code)

    app.add_middleware(Guard, token=token)
    return app
