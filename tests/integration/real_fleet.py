"""A real fleet for the tests: `mcoe-server start` and `mcoe-client --device none` as processes on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from ports import free_port

from client.enrolment import ClientPaths, read_membership
from client.folder_store import FolderStore
from client.learner import learn
from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, read_model, write_model
from mcoe_model.networks import build
from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import Payload
from server.acceptance import Accepted, Reply
from server.registry import PUBLISHED, Registry, RoundRow
from server.registry.artifacts import Artifacts
from server.registry.database import connect, open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings
from server.settings import ServerSettings

BIN = Path(sys.executable).parent
#: How many times as long as alone anything may take on a machine that has other things to do.
BUSY = 3


@cache
def _drawn() -> tempfile.TemporaryDirectory[str]:
    """Drawn once in a process, and gone with it."""
    made = tempfile.TemporaryDirectory()
    write_see(Path(made.name), SyntheticSettings(subjects=3, sequences=4, size=64), workers=2)
    return made


def make_data(root: Path) -> Path:
    """Three subjects with four sequences each, in SEE's layout."""
    return Path(shutil.copytree(_drawn().name, root))


def make_base(data: Path, file: Path, seed: int = 1) -> Path:
    """An untrained mcoe-tiny with its card."""
    clips = open_clips(data, size=64, cache=file.parent / "cache")
    tensors = tensors_of(build("mcoe-tiny", seed=seed))
    normalisation = measure_normalisation(clips, range(len(clips.records)))
    write_model(file, tensors, ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors), 64, normalisation), "test"))
    return file


def listens(port: int) -> bool:
    """Whether somebody listens at a port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(program: str, *arguments: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """A command to its end; its failure is the test's unless expected."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUSY * 120)
    assert fails or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until the condition holds. ``seconds``: what that may take where nothing else runs."""
    ends = time.monotonic() + BUSY * seconds
    while not condition():
        assert time.monotonic() < ends, f"{what} did not happen within {BUSY * seconds} s"
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

    def end(self, signal_number: int = signal.SIGTERM, seconds: float = 120) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal_number)
        return self.popen.wait(BUSY * seconds)

    def said(self) -> str:
        return self.log.read_text()


class Server:
    """`mcoe-server` in a folder. With ``tables`` of experiments in its settings, the caller imports their models."""

    def __init__(self, folder: Path, base: Path, tables: str = "") -> None:
        self.folder = folder
        self.base = base
        self.port = free_port()
        run("mcoe-server", "init", "--dir", folder, "--port", self.port)
        if tables:
            with (folder / "mcoe-server.toml").open("a") as settings:
                settings.write(tables)
        else:
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
        wait_for(lambda: listens(self.port) and listens(self.port + 1), 180, "the server's start")

    def ask(self, *command: object) -> Any:
        """A command's JSON."""
        return json.loads(run("mcoe-server", *command, "--dir", self.folder, "--json").stdout)

    def registry(self, experiment: str = "fleet") -> Registry:
        """Its registry, looked at from outside: a command takes two seconds to start."""
        return Registry(connect(sqlite_url(self.folder / "registry.sqlite")), experiment)

    def published(self, experiment: str = "fleet") -> list[RoundRow]:
        return [row for row in self.registry(experiment).rounds() if row.state == PUBLISHED]

    def wait_for_round(self, number: int, seconds: float = 120, experiment: str = "fleet") -> None:
        wait_for(lambda: len(self.published(experiment)) >= number, seconds, f"round {number} of {experiment}")

    def child(self, kind: str, experiment: str = "") -> int:
        """The process id of a child."""
        command = f"server.children {kind} {self.folder} {experiment}".strip()
        found = subprocess.run(["pgrep", "-f", command], capture_output=True, text=True).stdout.split()
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

    def enrol(self, server: Server, *flags: object) -> None:
        line = server.ask("clients", "invite", self.name, *flags)["invitation"]
        run("mcoe-client", "enrol", line, "--dir", self.folder, "--clips", self.data, "--subject", self.subject)

    def start(self) -> None:
        self.process = Process(
            self.folder.parent / f"{self.name}.log", BIN / "mcoe-client", "--device", "none", "--dir", self.folder
        )

    def supernode(self) -> int:
        """The process id of its SuperNode."""
        found = subprocess.run(["pgrep", "-f", f"client.supernode .*{self.folder}/"], capture_output=True, text=True)
        return int(found.stdout.split()[0])

    def trained(self) -> list[int]:
        """The rounds that it trained for, in order."""
        assert self.process is not None
        lines = [line for line in self.process.said().splitlines() if "trained on" in line]
        return [int(line.split("round ")[1].split(":")[0]) for line in lines]


def expected_models(base: Path, clients: Sequence[Client], folder: Path, rounds: int) -> list[str]:
    """The hashes of the models that honest clients make in this process, down to the names of their updates."""
    settings = ServerSettings()
    registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), settings.experiment)
    tensors, card = read_model(base)
    engine = RoundEngine(
        registry,
        Artifacts(folder / "models"),
        folder / "spool",
        RoundSettings(settings.fine_tune, settings.train, settings.rule, seed=settings.seed),
    )
    engine.start_from(tensors, card)
    stores = []
    for client in clients:
        paths = ClientPaths(client.folder)
        membership = read_membership(paths)
        model = next(iter(paths.models.glob("*.safetensors")))
        stores.append(FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, model))
        registry.saw(CheckIn(membership.client_id, len(stores[-1].clip_names())))
    found = []
    for _ in range(rounds):
        current = engine.open([store.client_id for store in stores])
        for store in stores:
            learned = learn(store, current.task, Payload.of(current.payload))
            reply = Reply(store.client_id, learned.update, learned.meta.to_record(), learned.report.to_record())
            assert isinstance(engine.receive(current, reply), Accepted)
        found.append(str(engine.finish(current)))
    return found
