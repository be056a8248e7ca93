"""Leaving a running server, what it makes again after a loss, and what all of that leaves in files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import closing

import pytest
from front_server import FLAGS, Caller, Front, fleet_headers, fleet_request, invitations
from real_fleet import Client, listens, wait_for

from client.enrolment import ClientPaths
from mcoe_model.errors import ExitCode
from mcoe_model.names import EMOTIONS
from mcoe_model.signed_request import public_pem, sign
from server.superlink.control import Control


@pytest.mark.parametrize("way", ["withdraw", "forget"])
def test_a_wearable_leaves_on_its_own_word(front: Front, caller: Caller, way: str) -> None:
    client, path, activate = f"goes by {way}".replace(" ", "-"), f"/v1/device/{way}", "/v1/fleet/activate-node"
    key = caller.member(front, client)
    assert caller.ask("POST", activate, fleet_request(activate, key, 0), fleet_headers(key))[0] == 200
    status, said = caller.ask("POST", path, headers=sign(key, "POST", path))
    receipt = json.loads(said)
    assert (status, receipt["client_id"]) == (200, client)
    known = {row.id: row.state for row in front.fleet.registry.clients()}
    if way == "withdraw":
        assert receipt["state"] == known[client] == "withdrawn"
    else:
        assert client not in known
        assert receipt["deleted"]["clients"] == 1 and receipt["descendants"] == []
        assert all(event.client_id != client for event in front.fleet.registry.events(1000))
    assert not front.known_to_flower(public_pem(key))
    assert 400 <= caller.ask("POST", activate, fleet_request(activate, key, 0), fleet_headers(key))[0] < 500
    assert caller.refused("GET", "/v1/device/model", headers=sign(key, "GET", "/v1/device/model"))[0] == 403
    assert caller.ask("POST", path, headers=sign(key, "POST", path)) == (status, said), "its answer may have been lost"


# -- after a loss ----------------------------------------------------------------------------------------------


def test_flowers_database_is_made_again_from_the_registry(front: Front) -> None:
    """Deleted while the server is down: who is a member may connect, who is not may not, and a round takes place."""
    server, process = front.server, front.server.process
    assert process is not None
    client = Client(front.folder / "learner", front.data, "001", "learner")
    client.enrol(server)
    members = {row.id: row.public_key for row in front.fleet.registry.clients() if row.state == "enrolled"}
    assert "learner" in members
    assert process.end(seconds=60) == ExitCode.OK
    for file in server.folder.glob("superlink.sqlite*"):
        file.unlink()
    shutil.rmtree(server.folder / "flower", ignore_errors=True)
    server.start(*FLAGS)
    for key in members.values():
        assert key is not None
        wait_for(lambda key=key: front.known_to_flower(key), 60, "registration")  # type: ignore[misc]
    with closing(Control(front.fleet.control_address)) as control:
        assert set(control.nodes()) == set(members.values())
    client.start()
    try:
        wait_for(lambda: front.fleet.registry.last_published() == 1, 300, "round 1")
    finally:
        assert client.process is not None
        client.process.end()
    (row,) = front.fleet.registry.rounds()
    assert [(reply.client_id, reply.accepted) for reply in front.fleet.registry.replies(row.id)] == [("learner", True)]


def test_a_request_that_was_made_before_a_kill_of_the_superlink_is_refused_after_it(
    front: Front, caller: Caller
) -> None:
    key, path = caller.member(front, "patient"), "/v1/device/model"
    used, kept = sign(key, "GET", path), sign(key, "GET", path)
    assert caller.ask("GET", path, headers=used)[0] == 200
    os.kill(front.server.child("superlink"), signal.SIGKILL)
    wait_for(lambda: not listens(front.server.port), 60, "the kill")
    wait_for(lambda: listens(front.server.port), 120, "the restart")
    caller.connection.close()
    status, said = caller.refused("GET", path, headers=used)
    assert status == 401 and "made before" in said
    assert caller.ask("GET", path, headers=kept)[0] == 200


def test_no_secret_and_nothing_of_the_wearer_is_in_any_log(front: Front, wearable: ClientPaths) -> None:
    """The last test of this file: it reads what all the others left behind."""
    logs = [path for path in front.folder.rglob("*.log") if path.is_file()]
    assert {path.name for path in logs} >= {"superlink.log", "coordinator.log", "supernode.log", "server.log"}
    text = "\n".join(path.read_text() for path in logs)
    assert "round 1" in text  # they do say something

    secrets = {invitation.token for invitation in invitations}
    for path in front.folder.rglob("*"):
        if path.is_file() and (path.name in ("node", "ca.key", "server.key") or path.suffix in (".secret", ".token")):
            secrets |= {line for line in path.read_text().splitlines() if line and not line.startswith("-----")}
    assert len(secrets) > 20
    assert [secret for secret in secrets if secret in text] == []

    names = {path.name for path in front.data.rglob("*")} - {"001", "002", "003"}
    assert len(names) > 10
    assert [name for name in names if len(name) > 3 and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)] == []
    assert [emotion for emotion in EMOTIONS if re.search(rf"\b{emotion}\b", text, re.IGNORECASE)] == []
    assert str(front.data) not in text


def test_what_holds_a_secret_is_for_its_owner_alone(front: Front, wearable: ClientPaths) -> None:
    names, kinds = ("node", "ca.key", "server.key", "running.json"), (".secret", ".token")
    held = [path for path in front.folder.rglob("*") if path.name in names or path.suffix in kinds]
    assert len(held) > 6
    assert [path for path in held if os.stat(path).st_mode & 0o077] == []
