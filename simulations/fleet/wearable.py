"""A real `mcoe-client --device ...` in a folder: its processes, its commands, its disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from client.control import ask
from client.ring import unlink_rings
from client.wearable.folders import plain_folder
from mcoe_model.errors import McoeError
from simulations.fleet.processes import BIN, Process, run, wait_for


class RealWearable:
    """The processes of one wearable. ``page_port`` 0: any that is free, another one at each start."""

    def __init__(self, folder: Path, device: str = "simulated:7", page_port: int = 0) -> None:
        self.folder = folder
        self.device = device
        self.page_port = page_port
        self.process: Process | None = None

    def start(self) -> None:
        """Start it, also again, and wait until it answers. Raises ProcessFailed."""
        where = ("--dir", self.folder, "--page-host", "127.0.0.1", "--page-port", self.page_port)
        self.process = Process(self.folder.parent / "main.log", BIN / "mcoe-client", "--device", self.device, *where)
        wait_for(self.answers, 120, "the wearable's start")

    def answers(self) -> bool:
        """Whether its main process takes commands."""
        try:
            self.status()
        except McoeError:
            return False
        return True

    def command(self, *arguments: object, fails: bool = False) -> Any:
        """A command's JSON, or the exit code of one that is to fail."""
        done = run("mcoe-client", *arguments, "--dir", self.folder, "--json", fails=fails)
        return done.returncode if fails else json.loads(done.stdout)

    def ask(self, do: str, **arguments: Any) -> Any:
        """The main process, without a command's start of a second."""
        return ask(self.folder, do, **arguments)

    def status(self) -> dict[str, Any]:
        """What it does now."""
        return dict(self.ask("status"))

    def sees(self) -> bool:
        """Whether a camera is there."""
        camera = self.status()["camera"]
        return camera is not None and bool(camera["seen"])

    def child(self, module: str) -> int | None:
        """The process id of a child."""
        assert self.process is not None
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = (stat.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.process.popen.pid and module.encode() in command:
                return int(stat.parent.name)
        return None

    def kill(self, module: str, number: int) -> None:
        """End a child; returns when another one has taken its place."""
        before = self.child(module)
        assert before is not None
        os.kill(before, number)
        wait_for(lambda: self.child(module) not in (before, None), 60, f"the start of another {module}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return self.process.end(number)

    def remove(self) -> None:
        """End it, however far it is, and take away what it has in memory."""
        if self.process is not None:
            self.process.end(signal.SIGKILL)
        plain = plain_folder(self.folder)
        unlink_rings(f"{plain.name}-")
        shutil.rmtree(plain, ignore_errors=True)

    def session(self, session: str) -> dict[str, Any]:
        """What its store says of a session."""
        return next(one for one in self.ask("sessions") if one["id"] == session)

    def written(self) -> int:
        """Bytes of plain segments; a second of recording is some 2 MB, of which the writer holds back a little."""
        return sum(path.stat().st_size for path in self.plain_files())

    def plain_files(self) -> list[Path]:
        """What lies unsealed in memory."""
        return [path for path in plain_folder(self.folder).glob("*") if path.is_file()]
