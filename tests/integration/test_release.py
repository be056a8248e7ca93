"""A model's way from candidate to released, with the real server and real clients over TLS."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_fleet import Client, Server, make_base, make_data, run, wait_for

from server.registry.models import CANARY, RELEASED

SETTINGS = """
evaluation_clients = 3
evaluation_margin = 1.0
canary_share = 0.3
canary_check_ins = 1
"""


class Fleet:
    """A server that has every new model compared by three clients and run by one, and these clients."""

    def __init__(self, folder: Path) -> None:
        data = make_data(folder / "data")
        self.server = Server(folder / "server", make_base(data, folder / "base.safetensors"))
        settings = self.server.folder / "mcoe-server.toml"
        settings.write_text(settings.read_text() + SETTINGS)
        self.clients = [Client(folder / f"w{i}", data, f"00{i}", f"w{i}") for i in (1, 2, 3)]

    def events(self, kind: str) -> list[str]:
        return [event.detail for event in self.server.registry().events(500) if event.kind == kind]

    def runs(self, client: Client) -> dict[str, Any]:
        return json.loads(run("mcoe-client", "status", "--dir", client.folder, "--json").stdout)  # type: ignore[no-any-return]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        made.server.start("--min-clients", 3, "--pause-s", 0.1, "--deadline-s", 600)
        for client in made.clients:
            client.enrol(made.server)
            client.start()
        yield made
    finally:
        for process in [client.process for client in made.clients] + [made.server.process]:
            if process is not None and process.popen.poll() is None:
                process.end()


def test_a_model_is_compared_by_clients_run_by_one_and_released(fleet: Fleet) -> None:
    server = fleet.server
    wait_for(lambda: server.registry().was_canary() == {2}, 600, "a canary")
    os.kill(server.child("coordinator"), signal.SIGKILL)
    wait_for(lambda: server.registry().model(2).state == RELEASED, 600, "its release")
    made = server.registry().model(2).sha256
    assert fleet.events("model canary")[-1] == f"{made}: offered to 1 clients"
    assert fleet.events("canary refused") == fleet.events("evaluation rejected") == []
    assert "waiting: model version 2 is canary: 0 of 1 check-ins" in server.log("coordinator")
    server.wait_for_round(2)
    second = server.registry().rounds()[1]
    assert second.base_sha256 == made
    with server.registry().engine.connect() as connection:
        reports = connection.exec_driver_sql(
            "SELECT client_id, examples FROM client_evaluations JOIN models ON models.id = model_id WHERE version = 2"
        ).all()
    assert sorted(reports) == [("w1", 4), ("w2", 4), ("w3", 4)]
    ran = [client for client in fleet.clients if client.process and "runs from now on" in client.process.said()]
    assert ran and all(fleet.runs(client)["refused"] == "" for client in ran)
    runs = fleet.runs(ran[0])["runs"]  # asked for first: models go on meanwhile
    versions = server.registry().models()
    assert {model.state for model in versions[:2]} == {RELEASED}
    assert runs in {model.sha256 for model in versions if model.state in (RELEASED, CANARY)}
