"""A real SuperLink without a coordinator, whose messages a test sends itself."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from ports import free_port
from real_fleet import Process, listens, run, wait_for

from mcoe_model.signed_request import public_pem
from server.fleet import open_fleet
from server.paths import ServerPaths
from server.settings_file import load_settings, write_running
from server.superlink.run import RunGrid, run_grid


class Link:
    """A SuperLink without a coordinator, and two nodes with enrolled keys."""

    def __init__(self, folder: Path) -> None:
        self.paths = ServerPaths(folder / "server")
        port = free_port()
        run("mcoe-server", "init", "--dir", self.paths.folder, "--port", port)
        settings = load_settings(self.paths, {})
        write_running(self.paths, [settings])
        fleet = open_fleet(self.paths, settings)
        self.keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("a", "b")}
        for name, key in self.keys.items():
            fleet.add(name, public_pem(key))
        self.public, self.local = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
        command = (sys.executable, "-m", "server.children", "superlink", self.paths.folder)
        self.process = Process(folder / "superlink.log", *command)
        wait_for(lambda: listens(port) and listens(port + 1), 60, "the SuperLink's start")
        fleet.register_members()

    @property
    def file(self) -> Path:
        return self.paths.run_of("fleet")

    @contextmanager
    def grid(self, stalled_s: float = 60.0, largest: int = 1 << 30) -> Iterator[RunGrid]:
        secret = self.paths.secret.read_bytes()
        with run_grid(self.local, secret, self.file, lambda: largest, stalled_s) as grid:
            yield grid

    def kept(self, parts: Sequence[str]) -> int:
        """How many of these parts the SuperLink keeps."""
        with closing(sqlite3.connect(self.paths.superlink)) as database:
            marks = ", ".join("?" * len(parts))
            query = f"SELECT COUNT(*) FROM objects WHERE object_id IN ({marks})"
            return int(database.execute(query, parts).fetchone()[0])
