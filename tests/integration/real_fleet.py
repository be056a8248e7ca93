"""A real fleet for the tests: `mcoe-server start` and `mcoe-client --device none` as processes on loopback."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ports import free_port

from client.enrolment import ClientPaths, read_membership
from client.folder_store import FolderStore
from client.learner import ClipStore, learn
from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, read_model, write_model
from mcoe_model.networks import build
from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import Payload
from server.acceptance import Accepted, Reply
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings
from server.settings import ServerSettings
from simulations.fleet import server as started
from simulations.fleet.processes import BIN, BUSY, Process, listens, run, wait_for

__all__ = [
    "BIN", "BUSY", "Client", "Process", "Server", "expected_models", "listens", "make_base", "make_data", "models_of",
    "run", "wait_for",
]  # fmt: skip


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


class Server(started.Server):
    """`mcoe-server` in a folder, at ports of this worker's."""

    def __init__(self, folder: Path, base: Path, tables: str = "") -> None:
        super().__init__(folder, base, free_port(), tables)


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
    stores = []
    for client in clients:
        paths = ClientPaths(client.folder)
        membership = read_membership(paths)
        # Not the client's own file of a model: it fetches the next meanwhile, and lets the one before go.
        stores.append(FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, base))
    return models_of(base, stores, folder, rounds)


def models_of(base: Path, stores: Sequence[ClipStore], folder: Path, rounds: int) -> list[str]:
    """The hashes of the models that come of these clips in so many rounds, with the settings of a server's default."""
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
    for store in stores:
        registry.saw(CheckIn(store.client_id, len(store.clip_names())))
    found = []
    for _ in range(rounds):
        current = engine.open([store.client_id for store in stores])
        for store in stores:
            learned = learn(store, current.task, Payload.of(current.payload))
            reply = Reply(store.client_id, learned.update, learned.meta.to_record(), learned.report.to_record())
            assert isinstance(engine.receive(current, reply), Accepted)
        found.append(str(engine.finish(current)))
    return found
