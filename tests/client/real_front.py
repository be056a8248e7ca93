"""The fleet's public routes over TLS, as a server serves them, without Flower and its processes behind them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from ports import free_port
from starlette.responses import Response

from mcoe_model.invitation import Invitation
from server.certificates import fingerprint, make_authority, make_server_certificate, read_certificate
from server.device_routes import PREFIX, device_routes
from server.experiments import Experiments
from server.fleet import Fleet
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.database import open_database, sqlite_url
from server.superlink.process import public_front


class RealFront:
    """A server that is away until it is `up`, always at the same address. ``refusals`` counts whom it refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_authority(folder)
        make_server_certificate(folder, ["127.0.0.1"])
        self.registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), "fleet")
        self.fleet = Fleet(self.registry, ServerPaths(folder), "127.0.0.1:1")
        self.fleet.register_members = lambda: 0  # type: ignore[method-assign]  # nobody has to tell Flower
        self.refusals: list[str] = []
        self.port = free_port(1)
        self._away = socket.socket()
        self._leave()
        routes = device_routes(
            Experiments([self.fleet]), folder, folder / "used", lambda refusal: self.refusals.append(refusal.reason),
            enrolment=True, forgetting="keep",
        )  # fmt: skip
        self._app = public_front(Response(status_code=500), routes, PREFIX)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def invite(self, client: str) -> Invitation:
        return self.fleet.invite(self.address, fingerprint(read_certificate(self.folder / "ca.crt")), client)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Answer for as long as this lasts."""
        self._away.listen()
        config = uvicorn.Config(
            self._app, ssl_certfile=self.folder / "server.crt", ssl_keyfile=str(self.folder / "server.key"),
            lifespan="off", log_config=None, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [self._away]})
        thread.start()
        ends = time.monotonic() + 180
        while not server.started:
            assert thread.is_alive() and time.monotonic() < ends
            time.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
            self._leave()

    def close(self) -> None:
        self._away.close()
        self.registry.engine.dispose()

    def _leave(self) -> None:
        """Nobody listens at the address, and nobody else takes it."""
        self._away.close()
        self._away = socket.socket()
        self._away.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._away.bind(("127.0.0.1", self.port))
