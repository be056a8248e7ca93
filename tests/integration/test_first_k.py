"""Real processes whose rounds close with the first reply: whoever comes too late answers a later round, and counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_fleet import Client, Server, make_base, make_data, wait_for

NAMES = ("first", "second")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[Client]]]:
    """A server that takes the first of two, and its clients at work."""
    folder = tmp_path_factory.mktemp("first-k")
    data = make_data(folder / "data")
    server = Server(folder / "server", make_base(data, folder / "base.safetensors"))
    with (server.folder / "mcoe-server.toml").open("a") as settings:
        settings.write("first_k = 1\nmax_staleness = 8\nkeep_updates = true\npause_s = 0.1\n")
    clients = [Client(folder / name, data, f"00{index + 1}", name) for index, name in enumerate(NAMES)]
    try:
        server.start()
        for client in clients:
            client.enrol(server)
            client.start()
        yield server, clients
    finally:
        for process in (*(client.process for client in clients), server.process):
            if process is not None:
                process.popen.send_signal(signal.SIGCONT)
                process.end()


def stale_rounds(server: Server) -> list[int]:
    """The published rounds that took an update of an earlier base."""
    registry = server.registry()
    return [
        row.number
        for row in server.published()
        if any(reply.accepted and reply.staleness for reply in registry.replies(row.id))
    ]


def _late(server: Server, clients: list[Client]) -> tuple[Client, Client] | None:
    """The client whose newest update came too late for its round and was taken by none since, and the other one."""
    registry = server.registry()
    taken = {row.number: r.client_id for row in server.published() for r in registry.replies(row.id) if r.accepted}
    for client, other in (clients, clients[::-1]):
        trained = client.trained()
        after = [who for number, who in taken.items() if trained and number > trained[-1]]
        if trained and taken.get(trained[-1]) == other.name and client.name not in after:
            return client, other
    return None


def _answers_late(server: Server, clients: list[Client]) -> None:
    """Let a client that is late answer alone: the other program stands still, although its node is online."""
    before = len(stale_rounds(server))
    wait_for(lambda: _late(server, clients) is not None, 300, "an update that came too late")
    late = _late(server, clients)
    if late is None:  # it was taken a moment ago
        return
    other = late[1]
    assert other.process is not None
    other.process.popen.send_signal(signal.SIGSTOP)
    wait_for(lambda: len(stale_rounds(server)) > before, 300, "a round that takes a late update")
    other.process.popen.send_signal(signal.SIGCONT)


def test_late_updates_are_taken_once_with_their_staleness(fleet: tuple[Server, list[Client]]) -> None:
    server, clients = fleet
    while len(stale_rounds(server)) < 2:
        _answers_late(server, clients)
    os.kill(server.child("coordinator"), signal.SIGKILL)
    server.wait_for_round(len(server.published()) + 2, seconds=300)
    assert len(stale_rounds(server)) >= 2
    registry, updates = server.registry(), []
    for row in server.published():
        taken = [reply for reply in registry.replies(row.id) if reply.accepted]
        assert len(taken) == 1
        assert taken[0].staleness is not None and 0 <= taken[0].staleness <= 8
        updates += [reply.update_id for reply in taken]
    assert len(set(updates)) == len(updates)
    for client in clients:
        assert client.trained() == sorted(set(client.trained()))


def test_a_round_with_a_late_update_is_replayed_to_the_same_bits(fleet: tuple[Server, list[Client]]) -> None:
    server, _ = fleet
    assert server.ask("rounds", "replay", stale_rounds(server)[0])["same"]


def test_the_outboxes_do_not_grow(fleet: tuple[Server, list[Client]]) -> None:
    server, clients = fleet
    for client in clients:
        assert len(list((client.folder / "outbox").glob("*.sealed"))) <= 3
    assert Path(server.folder / "logs" / "coordinator.log").read_text().count("Traceback") == 0
