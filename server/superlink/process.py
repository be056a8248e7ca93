"""The SuperLink as a process of ours: everything on loopback, what wearables need in public."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.main import create_app
from starlette.types import ASGIApp, Receive, Scope, Send

from server.refusals import Note
from server.superlink.limits import RateLimit, limited
from server.superlink.once import once
from server.superlink.watched import own_replies, watched

#: Routes of Flower's that wearables need; every other one is refused publicly.
PUBLIC_PREFIX, PUBLIC_PATHS = "/v1/fleet/", frozenset({"/health"})


@dataclass(frozen=True)
class SuperLink:
    """Where a SuperLink listens and what it keeps. ``host`` and ``port`` are public, ``local_port`` is on loopback.

    ``per_minute`` requests and bodies of ``max_body`` bytes are what one address may send to Flower's public routes.
    """

    certificates: Path
    database: Path
    secret: Path
    host: str
    port: int
    local_port: int
    per_minute: int
    max_body: int


def serve(superlink: SuperLink, device_routes: ASGIApp, device_prefix: str, note: Note) -> None:
    """Run the SuperLink in this process until SIGTERM: all of it on loopback, what wearables need in public, by TLS.

    ``note`` is told what the public routes refuse.
    """
    folder = superlink.certificates
    sys.argv = [
        "flower-superlink",
        "--ssl-certfile", str(folder / "server.crt"),
        "--ssl-keyfile", str(folder / "server.key"),
        "--ssl-ca-certfile", str(folder / "ca.crt"),
        "--enable-supernode-auth",
        "--database", str(superlink.database),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(superlink.secret),
        "--disable-runtime-dependency-installation",
        "--host", "127.0.0.1",
        "--port", str(superlink.local_port),
    ]  # fmt: skip
    app = create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)
    fleet = limited(once(own_replies(app, note)), RateLimit(superlink.per_minute), superlink.max_body)
    public = _Server(
        uvicorn.Config(
            public_front(watched(fleet, note), device_routes, device_prefix),
            host=superlink.host,
            port=superlink.port,
            ssl_keyfile=str(folder / "server.key"),
            ssl_certfile=str(folder / "server.crt"),
            lifespan="off",
            access_log=False,
            proxy_headers=False,  # nobody but we ends its TLS, so nobody may say for whom a request is made
            timeout_graceful_shutdown=3,
        )
    )
    local = _Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=superlink.local_port, access_log=False, timeout_graceful_shutdown=3
        )
    )

    async def both() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await asyncio.gather(local.serve(), public.serve())

    def stop() -> None:
        local.should_exit = public.should_exit = True
        # Nodes keep connections open; they come again by themselves.
        asyncio.get_running_loop().call_later(1.0, force)

    def force() -> None:
        local.force_exit = public.force_exit = True

    asyncio.run(both())


class _Server(uvicorn.Server):
    """A server that leaves signals to the process, which has two of them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def public_front(app: ASGIApp, device_routes: ASGIApp, device_prefix: str) -> ASGIApp:
    """What the public port serves: Flower's fleet routes and health, our device routes, and 404 for all else."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        scope.setdefault("state", {})
        if scope["type"] == "http" and path.startswith(device_prefix):
            await device_routes(scope, receive, send)
        elif scope["type"] == "http" and (path.startswith(PUBLIC_PREFIX) or path in PUBLIC_PATHS):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close"})

    return front
