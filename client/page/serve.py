"""Serves the page beside whatever else the wearable's main process does."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from client.page.announcement import keep_announced, reached_at, require_announcer
from client.page.app import make_page
from client.page.certificate import device_certificate
from client.page.settings import PageSettings
from client.page.wearable_protocol import Wearable
from mcoe_model.errors import PortInUse, SettingsError

#: Seconds that requests have to end once the page stops.
_GRACE_S = 2


async def serve_page(
    wearable: Wearable,
    settings: PageSettings,
    stopping: asyncio.Event,
    ready: Callable[[int], None] = lambda port: None,
    addresses: Callable[[str], list[str]] = reached_at,
) -> None:
    """Serve the page until ``stopping`` is set. ``ready`` is called with the port once it can be reached.

    Beyond loopback its name is announced on the network, at the ``addresses`` that the host has at that moment.
    Raises PortInUse, SettingsError, MissingExtra.
    """
    require_announcer(settings.host)
    own = device_certificate(settings.folder)
    listening = _listening(settings)
    port = int(listening.getsockname()[1])
    config = uvicorn.Config(
        make_page(wearable, settings, own.name, stopping),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=own.certificate if settings.tls else None,
        ssl_keyfile=own.key if settings.tls else None,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve([listening]))
    try:
        ready(port)
        await keep_announced(own.name, port, partial(addresses, settings.host), stopping)
    finally:
        server.should_exit = True
        await serving


def _listening(settings: PageSettings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port))
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE:
            where = f"port {settings.port}"
            raise PortInUse(f"another program listens at {where}; choose another for the page") from fault
        where = f"{settings.host}:{settings.port}"
        raise SettingsError([f"the page cannot listen on {where} ({fault.strerror})"]) from fault


class _Server(uvicorn.Server):
    """Leaves signals to the process that it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
