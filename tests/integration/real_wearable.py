"""A real `mcoe-client --device simulated` in a folder: its processes, its commands, its disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from real_fleet import BIN, Process, run, wait_for

from client.control import ask
from client.ring import unlink_rings
from client.wearable.folders import plain_folder
from mcoe_model.errors import McoeError
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build

#: What every AEDAT4 file begins with.
AEDAT4 = b"#!AER-DAT4"


def untrained_model(path: Path, seed: int = 1) -> Path:
    """A file with an untrained mcoe-tiny to recognise with; another seed is another generation."""
    tensors = tensors_of(build("mcoe-tiny", seed=seed))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    write_model(path, tensors, ModelCard(generation, "a test"))
    return path


class RealWearable:
    """The processes of one wearable."""

    def __init__(self, folder: Path, device: str = "simulated:7") -> None:
        self.folder = folder
        self.device = device
        self.process: Process | None = None

    def start(self) -> None:
        where = ("--dir", self.folder, "--page-host", "127.0.0.1", "--page-port", 0)
        self.process = Process(self.folder.parent / "main.log", BIN / "mcoe-client", "--device", self.device, *where)
        wait_for(self.answers, 120, "the wearable's start")

    def answers(self) -> bool:
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
        return next(one for one in self.ask("sessions") if one["id"] == session)

    def written(self) -> int:
        """Bytes of plain segments; a second of recording is some 2 MB, of which the writer holds back a little."""
        return sum(path.stat().st_size for path in self.plain_files())

    def plain_files(self) -> list[Path]:
        """What lies unsealed in memory."""
        return [path for path in plain_folder(self.folder).glob("*") if path.is_file()]


def files_with(places: Iterable[Path], *needles: bytes) -> list[Path]:
    """The files in these folders that hold any of the needles."""
    found = (path for place in places for path in place.rglob("*") if path.is_file())
    return [path for path in found if any(needle in path.read_bytes() for needle in needles)]
