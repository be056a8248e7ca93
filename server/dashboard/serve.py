"""Serves the dashboard on loopback until SIGTERM."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from types import FrameType

import uvicorn

from server.dashboard.access import dashboard_token
from server.dashboard.app import dashboard_app
from server.dashboard.watch import watch
from server.dashboard.webhook import notify
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database
from server.settings import ServerSettings

#: The dashboard listens here alone; from elsewhere it is reached through an SSH tunnel.
ADDRESS = "127.0.0.1"
#: Seconds that requests have to end after SIGTERM.
_GRACE_S = 2


def serve_dashboard(paths: ServerPaths, running: Sequence[ServerSettings], port: int, webhook: str = "") -> None:
    """Serve the dashboard of these experiments of a data folder until SIGTERM or SIGINT.

    ``webhook`` is told what happens meanwhile.

    The token is in DIR/dashboard.token, which is made when it is not there. Raises SystemExit for a port that is taken.
    """
    engine = open_database(paths.database_url(running[0].database))
    registries = [Registry(engine, settings.experiment) for settings in running]
    token = dashboard_token(paths.folder / "dashboard.token")
    app = dashboard_app(registries, Artifacts(paths.models), paths, running, token)
    stopping: threading.Event = app.state.stopping
    for registry in registries if webhook else ():
        arguments = (registry, partial(notify, webhook), stopping)
        threading.Thread(target=watch, args=arguments, name="watch", daemon=True).start()
    config = uvicorn.Config(
        app,
        host=ADDRESS,
        port=port,
        log_level="warning",
        access_log=False,  # it would hold the token
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    _Server(config, stopping).run()
    engine.dispose()


class _Server(uvicorn.Server):
    """A signal ends the open pages' event streams, which uvicorn would wait for, and then `run` returns.

    uvicorn's own handler has the signal end the process once more afterwards.
    """

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        self.should_exit = True
