"""The real server and real clients over TLS, while their processes are killed: the bits of an undisturbed run.

Three honest clients and one that lies with every reply. The models that the fleet publishes are compared with those of
the same engine fed by the same clients' training in this process, without network, kills or liar.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lying_client import LIES
from real_fleet import Client, Process, Server, make_base, make_data, run, wait_for

from client.enrolment import ClientPaths, read_membership
from client.folder_store import FolderStore
from client.learner import learn
from mcoe_model.errors import ExitCode
from mcoe_model.model_file import read_model
from mcoe_model.protocol import CheckIn
from server.acceptance import Accepted, Reply
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings
from server.settings import ServerSettings

NAMES = ("first", "second", "third")
FLAGS = ("--min-clients", 4, "--pause-s", 0.1, "--deadline-s", 600, "--train", "head")


class Fleet:
    """A server, three honest clients and a liar."""

    def __init__(self, folder: Path) -> None:
        self.data = make_data(folder / "data")
        self.base = make_base(self.data, folder / "base.safetensors")
        self.server = Server(folder / "server", self.base)
        self.clients = [
            Client(folder / name, self.data, f"00{index + 1}", name) for index, name in enumerate(NAMES)
        ]
        self.liar = Client(folder / "liar", self.data, "001", "liar")

    def begin(self) -> None:
        self.server.start(*FLAGS)
        for client in (*self.clients, self.liar):
            client.enrol(self.server)
        for client in self.clients:
            client.start()
        script = Path(__file__).parent / "lying_client.py"
        self.liar.process = Process(self.liar.folder.parent / "liar.log", sys.executable, script, self.liar.folder)

    def end(self) -> None:
        processes = [client.process for client in (*self.clients, self.liar)] + [self.server.process]
        for process in processes:
            if process is not None and process.popen.poll() is None:
                process.end()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def expected_models(fleet: Fleet, folder: Path, rounds: int) -> list[str]:
    """The hashes of the models that the honest clients make in this process, down to the names of their updates."""
    settings = ServerSettings()
    registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), settings.experiment)
    tensors, card = read_model(fleet.base)
    engine = RoundEngine(
        registry,
        Artifacts(folder / "models"),
        folder / "spool",
        RoundSettings(settings.fine_tune, settings.train, settings.rule, seed=settings.seed),
        card.generation.top_k,
    )
    engine.start_from(tensors, card)
    stores = []
    for client in fleet.clients:
        paths = ClientPaths(client.folder)
        membership = read_membership(paths)
        model = next(iter(paths.models.glob("*.safetensors")))
        stores.append(FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, model))
        registry.saw(CheckIn(membership.client_id, len(stores[-1].clip_names())))
    found = []
    for _ in range(rounds):
        current = engine.open(NAMES)
        for store in stores:
            learned = learn(store, current.task, current.payload)
            reply = Reply(store.client_id, learned.update, learned.meta.to_record(), learned.report.to_record())
            assert isinstance(engine.receive(current, reply), Accepted)
        found.append(str(engine.finish(current)))
    return found


def test_kills_and_lies_change_no_bit(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.server
    server.wait_for_round(2)

    os.kill(server.child("coordinator"), signal.SIGKILL)
    server.wait_for_round(4)

    os.kill(server.child("superlink"), signal.SIGKILL)
    server.wait_for_round(6)

    os.kill(fleet.clients[0].supernode(), signal.SIGKILL)  # the server believes in it for a minute
    server.wait_for_round(8, seconds=240)

    assert fleet.clients[1].process is not None
    fleet.clients[1].process.end(signal.SIGKILL)
    wait_for(lambda: not _runs(fleet.clients[1]), 10, "the end of the SuperNode of a killed client")
    fleet.clients[1].process.start()
    server.wait_for_round(len(LIES) + 4, seconds=300)

    published = server.published()  # rounds go on meanwhile
    made = [row.published_sha256 for row in published]
    assert set(made) <= {row["sha256"] for row in server.ask("models", "list")}
    assert made == expected_models(fleet, tmp_path, len(published))
    for row in published:
        replies = {reply.client_id: reply for reply in server.registry().replies(row.id)}
        assert {name for name, reply in replies.items() if reply.accepted} == set(NAMES)
        assert replies["liar"].reason and "wearer's name" not in replies["liar"].reason


def _runs(client: Client) -> bool:
    try:
        client.supernode()
    except IndexError:
        return False
    return True


def test_no_client_trained_twice_for_one_model(fleet: Fleet) -> None:
    """Only the client that was killed itself may have lost training that it had not finished."""
    for client in (fleet.clients[0], fleet.clients[2]):
        assert client.trained() == sorted(set(client.trained()))
        assert len(client.trained()) >= len(LIES)


def test_acknowledged_updates_leave_the_outbox(fleet: Fleet) -> None:
    """An update is let go of with the next task; the one that is under way waits, and perhaps its predecessor."""
    for client in fleet.clients:
        assert len(list((client.folder / "outbox").glob("*.safetensors"))) <= 2


def test_sigterm_ends_everything_within_ten_seconds(fleet: Fleet) -> None:
    assert fleet.server.process is not None
    children = [fleet.server.child(kind) for kind in ("superlink", "coordinator")]
    started = time.monotonic()
    assert fleet.server.process.end(seconds=60) == ExitCode.OK
    assert time.monotonic() - started < 10
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert len(fleet.server.published()) >= len(LIES)


def test_a_server_goes_on_where_it_was(fleet: Fleet) -> None:
    before = len(fleet.server.published())
    fleet.server.start(*FLAGS)
    fleet.server.wait_for_round(before + 2, seconds=240)
    numbers = [row.number for row in fleet.server.published()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_second_server_on_the_same_port_is_refused(fleet: Fleet) -> None:
    done = run("mcoe-server", "start", "--dir", fleet.server.folder, fails=True)
    assert done.returncode == ExitCode.PORT_IN_USE
    assert str(fleet.server.port) in done.stderr and len(done.stderr.splitlines()) == 1
