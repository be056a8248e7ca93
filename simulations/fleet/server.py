"""A real `mcoe-server` in a folder, started and asked by its commands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from server.registry import PUBLISHED, Registry, RoundRow
from server.registry.database import connect, sqlite_url
from simulations.fleet.processes import BIN, Process, listens, run, wait_for


class Server:
    """`mcoe-server` at ``port`` of this machine and the two that follow.

    With ``tables`` of experiments in its settings, the caller imports their models. ``address`` is where wearables
    reach it: what invitations say.
    """

    def __init__(self, folder: Path, base: Path, port: int, tables: str = "") -> None:
        self.folder = folder
        self.base = base
        self.port = port
        self.address = f"127.0.0.1:{port}"
        run("mcoe-server", "init", "--dir", folder, "--port", self.port)
        if tables:
            self.set(tables)
        else:
            run("mcoe-server", "models", "import", base, "--dir", folder)
        self.process: Process | None = None

    @property
    def local(self) -> str:
        """The address of Flower's own interfaces."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def dashboard(self) -> str:
        """The address of the operator's pages, with the token that they ask for."""
        return f"http://127.0.0.1:{self.port + 2}/?token={(self.folder / 'dashboard.token').read_text().strip()}"

    def set(self, lines: str) -> None:
        """More settings, as TOML, for the next start."""
        with (self.folder / "mcoe-server.toml").open("a") as settings:
            settings.write(lines)

    def start(self, *flags: object) -> None:
        """Start it and wait until it listens. Raises ProcessFailed."""
        command = (BIN / "mcoe-server", "start", "--dir", self.folder, *flags)
        self.process = Process(self.folder.parent / "server.log", *command)
        wait_for(lambda: listens(self.port) and listens(self.port + 1), 180, "the server's start")

    def ask(self, *command: object) -> Any:
        """A command's JSON."""
        return json.loads(run("mcoe-server", *command, "--dir", self.folder, "--json").stdout)

    def registry(self, experiment: str = "fleet") -> Registry:
        """Its registry, looked at from outside: a command takes two seconds to start."""
        return Registry(connect(sqlite_url(self.folder / "registry.sqlite")), experiment)

    def published(self, experiment: str = "fleet") -> list[RoundRow]:
        """The rounds that ended with a model, in order."""
        return [row for row in self.registry(experiment).rounds() if row.state == PUBLISHED]

    def wait_for_round(self, number: int, seconds: float = 120, experiment: str = "fleet") -> None:
        """Wait until so many rounds are published. Raises ProcessFailed."""
        wait_for(lambda: len(self.published(experiment)) >= number, seconds, f"round {number} of {experiment}")

    def child(self, kind: str, experiment: str = "") -> int:
        """The process id of a child."""
        command = f"server.children {kind} {self.folder} {experiment}".strip()
        found = subprocess.run(["pgrep", "-f", command], capture_output=True, text=True).stdout.split()
        return int(found[0])

    def log(self, kind: str) -> str:
        """What a child has logged."""
        return (self.folder / "logs" / f"{kind}.log").read_text()
