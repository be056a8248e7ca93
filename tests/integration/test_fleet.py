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
from lying_client import EXECUTED, LIES, TURNS
from real_fleet import BUSY, Client, Process, Server, expected_models, make_base, make_data, run, wait_for

from mcoe_model.errors import ExitCode

NAMES = ("first", "second", "third")
OFFLINE_S = 90.0
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
        self.killed = folder / "killed"

    def begin(self) -> None:
        killer = str(Path(__file__).parent / "killer")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", killer, prepend=os.pathsep)
            patch.setenv("MCOE_KILLED", str(self.killed))
            self.server.start(*FLAGS)
        for client in (*self.clients, self.liar):
            client.enrol(self.server)
        for client in self.clients:
            client.start()
        script = Path(__file__).parent / "lying_client.py"
        self.liar.process = Process(self.liar.folder.parent / "liar.log", sys.executable, script, self.liar.folder)

    def end_clients(self) -> None:
        for client in (*self.clients, self.liar):
            if client.process is not None:
                client.process.end()

    def end(self) -> None:
        self.end_clients()
        if self.server.process is not None:
            self.server.process.end()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def test_kills_and_lies_change_no_bit(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.server
    server.wait_for_round(2, seconds=400)
    # The first update that arrived was pulled, which deletes it in Flower, and not yet spooled (killer/sitecustomize).
    assert fleet.killed.exists()

    os.kill(server.child("coordinator"), signal.SIGKILL)
    server.wait_for_round(4, seconds=400)

    os.kill(server.child("superlink"), signal.SIGKILL)
    server.wait_for_round(6, seconds=400)

    assert fleet.clients[0].process is not None
    ended = fleet.clients[0].process.said().count("SuperNode ended")
    os.kill(fleet.clients[0].supernode(), signal.SIGABRT)
    server.wait_for_round(8, seconds=400)
    # The server heard of its end, or it would have turned its successor away for a minute.
    assert fleet.clients[0].process.said().count("SuperNode ended") == ended + 1

    offline, trained = fleet.clients[2].supernode(), len(fleet.clients[2].trained())
    wait_for(lambda: len(fleet.clients[2].trained()) > trained, 120, "a client's training")
    os.kill(offline, signal.SIGSTOP)  # what was trained cannot leave, and no heartbeat
    ends = time.monotonic() + OFFLINE_S

    assert fleet.clients[1].process is not None
    fleet.clients[1].process.end(signal.SIGKILL)  # the server believes in it for a minute
    wait_for(lambda: not _runs(fleet.clients[1]), 30, "the end of the SuperNode of a killed client")
    fleet.clients[1].process.start()

    time.sleep(max(0.0, ends - time.monotonic()))
    os.kill(offline, signal.SIGCONT)
    server.wait_for_round(TURNS + 1, seconds=400)
    # The killed client's next SuperNode was turned away at first, of which Flower's ends with this code.
    assert "Exit Code: 305" in (fleet.clients[1].folder / "supernode.log").read_text()

    published = server.published()  # rounds go on meanwhile
    made = [row.published_sha256 for row in published]
    assert set(made) <= {row["sha256"] for row in server.ask("models", "list")}
    assert made == expected_models(fleet.base, fleet.clients, tmp_path, len(published))
    for row in published:
        replies = {reply.client_id: reply for reply in server.registry().replies(row.id)}
        assert {name for name, reply in replies.items() if reply.accepted} == set(NAMES)
        assert replies["liar"].reason and "wearer's name" not in replies["liar"].reason
    reasons = {reply.reason for row in published for reply in server.registry().replies(row.id)}
    for said in (
        "not its client's", "examples holds a float", "of 0 examples cannot be believed", "cannot be read",
        "above this round's bound", "router statistics of 2/2 experts", "negative or larger", "sum to 7",
    ):  # fmt: skip
        assert any(said in (reason or "") for reason in reasons), said
    assert not list(fleet.server.folder.parent.rglob(EXECUTED))


def test_nobody_is_called_at_home(fleet: Fleet) -> None:
    """Neither by the server's processes nor by a wearable's SuperNode."""
    wanted = {
        "FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1",
    }  # fmt: skip
    found = [fleet.server.child(kind) for kind in ("superlink", "coordinator", "dashboard")]
    for process in [*found, fleet.clients[0].supernode()]:
        assert wanted <= set(Path(f"/proc/{process}/environ").read_text().split("\0"))


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
        kept = client.folder / "outbox"
        wait_for(lambda kept=kept: len(list(kept.glob("*.sealed"))) <= 2, 60, "the end of old updates")  # type: ignore[misc]
        assert len(client.trained()) > 2  # there were more


def test_sigterm_ends_everything_within_ten_seconds(fleet: Fleet) -> None:
    assert fleet.server.process is not None
    children = [fleet.server.child(kind) for kind in ("superlink", "coordinator")]
    started = time.monotonic()
    assert fleet.server.process.end(seconds=60) == ExitCode.OK
    assert time.monotonic() - started < BUSY * 10
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
    fleet.end_clients()  # whose rounds would slow down what follows


def test_a_second_server_on_the_same_port_is_refused(fleet: Fleet) -> None:
    done = run("mcoe-server", "start", "--dir", fleet.server.folder, fails=True)
    assert done.returncode == ExitCode.PORT_IN_USE
    assert str(fleet.server.port) in done.stderr and len(done.stderr.splitlines()) == 1
