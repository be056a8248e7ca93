"""Flower's database under a running server: it shrinks when no round is open, and forgets who is forgotten."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from real_fleet import Client, Server, make_base, make_data, wait_for

from client.enrolment import ClientPaths
from mcoe_model.errors import ExitCode
from server.superlink.control import Control
from server.superlink.database import database_bytes

NAME = "quiet-wearable"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, Client]]]:
    """A server that compacts from 1 MB on, with two wearables that learn."""
    folder = tmp_path_factory.mktemp("flower-database")
    data = make_data(folder / "data")
    server = Server(folder / "server", make_base(data, folder / "base.safetensors"))
    with (server.folder / "mcoe-server.toml").open("a") as settings:
        settings.write("compact_mb = 1\n")
    server.start("--min-clients", 2, "--pause-s", 3, "--deadline-s", 600)
    clients = {name: Client(folder / name, data, subject, name) for name, subject in ((NAME, "001"), ("other", "002"))}
    for client in clients.values():
        client.enrol(server)
        client.start()
    yield server, clients
    for client in clients.values():
        if client.process is not None:
            client.process.end()
    if server.process is not None:
        server.process.end()


def registered(server: Server) -> dict[str, int]:
    with closing(Control(server.local.removeprefix("http://"))) as control:
        return control.nodes()


def compactions(server: Server) -> list[tuple[float, float]]:
    """Megabytes before and after each."""
    lines = [line for line in server.log("superlink").splitlines() if "Flower's database had" in line]
    return [(float(line.split("had ")[1].split()[0]), float(line.split("has ")[1].split()[0])) for line in lines]


def test_rounds_fill_it_and_it_shrinks_when_none_is_open(fleet: tuple[Server, dict[str, Client]]) -> None:
    server, clients = fleet
    server.wait_for_round(1, 300)
    members = registered(server)
    wait_for(lambda: len(compactions(server)) >= 2, 300, "two compactions")
    assert all(after < 1 < before for before, after in compactions(server))
    assert registered(server) == members
    assert set(members) == {(client.folder / "node.pub").read_text() for client in clients.values()}
    server.wait_for_round(len(server.published()) + 1, 120)
    assert "flower_bytes" in server.ask("status")


def traces(folder: Path, words: list[str]) -> set[str]:
    """Which files hold any of these words, but for the receipts.

    By another process: one that has a database open must not close a file of it, since that ends its locks.
    """
    patterns = [part for word in words for part in ("-e", word)]
    command = ["grep", "-rlaF", "--exclude-dir=receipts", *patterns, "."]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return set(found.stdout.split())


def test_who_is_forgotten_leaves_no_trace_in_any_file(fleet: tuple[Server, dict[str, Client]]) -> None:
    server, clients = fleet
    gone = clients[NAME]
    pem = ClientPaths(gone.folder).public_key.read_text()
    words = [NAME, *pem.splitlines()[1:3]]
    held = {name.removesuffix("-wal") for name in traces(server.folder, words)}
    assert {"./registry.sqlite", "./superlink.sqlite"} <= held
    receipt = server.ask("forget", NAME, "--keep")
    assert receipt["client_id"] == NAME and receipt["descendants"]
    wait_for(lambda: not traces(server.folder, words), 60, f"the last trace's end, of {traces(server.folder, words)}")
    assert gone.process is not None
    gone.process.end()
    assert set(registered(server)) == {(clients["other"].folder / "node.pub").read_text()}
    (issued,) = (server.folder / "receipts").iterdir()
    assert json.loads(issued.read_text()) == receipt and os.stat(issued).st_mode & 0o077 == 0


def test_nothing_of_it_comes_back_with_a_restart(fleet: tuple[Server, dict[str, Client]]) -> None:
    server, _ = fleet
    assert server.process is not None and server.process.end(seconds=60) == ExitCode.OK
    assert traces(server.folder, [NAME]) == set()
    server.start("--min-clients", 1, "--pause-s", 3, "--deadline-s", 600)
    server.wait_for_round(len(server.published()) + 1, 300)
    assert traces(server.folder, [NAME]) == set()
    assert database_bytes(server.folder / "superlink.sqlite") > 0
