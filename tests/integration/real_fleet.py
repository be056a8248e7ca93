"""A real fleet for the tests: `mcoe-server start` and `mcoe-client --device none` as processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, write_model
from mcoe_model.networks import build
from server.registry import PUBLISHED, Registry, RoundRow
from server.registry.database import connect, sqlite_url

BIN = Path(sys.executable).parent


def make_data(root: Path) -> Path:
    """Three subjects with four sequences each, in SEE's layout."""
    write_see(root, SyntheticSettings(subjects=3, sequences=4, size=64), workers=2)
    return root


def make_base(data: Path, file: Path) -> Path:
    """An untrained mcoe-tiny with its card."""
    clips = open_clips(data, size=64, cache=file.parent / "cache")
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    normalisation = measure_normalisation(clips, range(len(clips.records)))
    write_model(file, tensors, ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors), 64, normalisation), "test"))
    return file


def free_port() -> int:
    """A port that was free a moment ago, and so is the next."""
    with closing(socket.socket()) as first:
        first.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens at a port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(program: str, *arguments: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """A command to its end; its failure is the test's unless expected."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert fails or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until the condition holds."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what} did not happen within {seconds} s"
        time.sleep(0.2)


class Process:
    """A program that runs in the background with its output in a file."""

    def __init__(self, log: Path, *command: object, cwd: Path | None = None) -> None:
        self.log = log
        self.command = [str(part) for part in command]
        self.cwd = cwd
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command, stdout=output, stderr=output, cwd=self.cwd, env=os.environ | {"PYTHONUNBUFFERED": "1"}
            )

    def end(self, signal_number: int = signal.SIGTERM, seconds: float = 30) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal_number)
        return self.popen.wait(seconds)

    def said(self) -> str:
        return self.log.read_text()


class Server:
    """`mcoe-server` in a folder."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.port = free_port()
        run("mcoe-server", "init", "--dir", folder, "--port", self.port)
        run("mcoe-server", "models", "import", base, "--dir", folder)
        self.process: Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def local(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    def start(self, *flags: object) -> None:
        command = (BIN / "mcoe-server", "start", "--dir", self.folder, *flags)
        self.process = Process(self.folder.parent / "server.log", *command)
        wait_for(lambda: listens(self.port) and listens(self.port + 1), 60, "the server's start")

    def ask(self, *command: object) -> Any:
        """A command's JSON."""
        return json.loads(run("mcoe-server", *command, "--dir", self.folder, "--json").stdout)

    def registry(self) -> Registry:
        """Its registry, looked at from outside: a command takes two seconds to start."""
        return Registry(connect(sqlite_url(self.folder / "registry.sqlite")), "fleet")

    def published(self) -> list[RoundRow]:
        return [row for row in self.registry().rounds() if row.state == PUBLISHED]

    def wait_for_round(self, number: int, seconds: float = 120) -> None:
        wait_for(lambda: len(self.published()) >= number, seconds, f"round {number}")

    def child(self, kind: str) -> int:
        """The process id of a child."""
        found = subprocess.run(
            ["pgrep", "-f", f"server.children {kind} {self.folder}"], capture_output=True, text=True
        ).stdout.split()
        return int(found[0])

    def log(self, kind: str) -> str:
        return (self.folder / "logs" / f"{kind}.log").read_text()


class Client:
    """`mcoe-client --device none` in a folder, as one subject of a data folder."""

    def __init__(self, folder: Path, data: Path, subject: str, name: str) -> None:
        self.folder = folder
        self.data = data
        self.subject = subject
        self.name = name
        self.process: Process | None = None

    def enrol(self, server: Server) -> None:
        line = server.ask("clients", "invite", self.name)["invitation"]
        run("mcoe-client", "enrol", line, "--dir", self.folder, "--clips", self.data, "--subject", self.subject)

    def start(self) -> None:
        self.process = Process(
            self.folder.parent / f"{self.name}.log", BIN / "mcoe-client", "--device", "none", "--dir", self.folder
        )

    def supernode(self) -> int:
        """The process id of its SuperNode."""
        found = subprocess.run(["pgrep", "-f", f"client.node .*{self.folder}/"], capture_output=True, text=True)
        return int(found.stdout.split()[0])

    def trained(self) -> list[int]:
        """The rounds that it trained for, in order."""
        assert self.process is not None
        lines = [line for line in self.process.said().splitlines() if "trained on" in line]
        return [int(line.split("round ")[1].split(":")[0]) for line in lines]
