"""What a running server lets wearables do: keys, signed requests, invitations, models."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.proto.recorddict_pb2 import RecordDict
from front_server import PROTOBUF, Caller, Front, fleet_headers, fleet_request, routes
from real_fleet import BIN, Process, run, wait_for
from real_wearable import RealWearable

from client.enrolment import ClientPaths, download_model, enrol, make_key, read_key
from client.told import ToldFile
from mcoe_model.errors import DataInvalid, ExitCode
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import LIFETIME_S, ONCE, SIGNATURE, TIME, public_pem, sign
from server.device_routes import MAX_BODY, PER_MINUTE
from server.registry.tables import Client as ClientTable
from server.superlink.once import REPLAYED
from server.superlink.watched import FORGED, GRACE_S, TURNED_AWAY, UNASKED


def test_no_fleet_route_serves_a_key_that_is_not_enrolled(front: Front, caller: Caller) -> None:
    member, stranger = caller.member(front, "member"), ec.generate_private_key(ec.SECP384R1())
    activate = "/v1/fleet/activate-node"
    assert caller.ask("POST", activate, fleet_request(activate, member, 0), fleet_headers(member))[0] == 200
    node = front.fleet.registry.client("member").node_id
    assert node is not None
    fleet_routes = [route for route in routes(front) if route.startswith("/v1/fleet/")]
    assert len(fleet_routes) == 12
    for route in fleet_routes:
        theirs, ours = fleet_request(route, stranger, node), fleet_request(route, member, node)
        refusals = {
            "unsigned": caller.ask("POST", route, ours, PROTOBUF)[0],
            "a stranger": caller.ask("POST", route, theirs, fleet_headers(stranger))[0],
            "a stranger as the member": caller.ask("POST", route, ours, fleet_headers(stranger))[0],
            "expired": caller.ask("POST", route, ours, fleet_headers(member, age_s=600))[0],
        }
        assert all(400 <= status < 500 for status in refusals.values()), (route, refusals)
    assert not front.known_to_flower(public_pem(stranger))
    heartbeat = "/v1/fleet/send-node-heartbeat"
    assert caller.ask("POST", heartbeat, fleet_request(heartbeat, member, node), fleet_headers(member))[0] == 200


def test_a_request_of_flowers_that_was_overheard_is_refused(front: Front, caller: Caller) -> None:
    """Its signature is good for five minutes, and for every route: it must be taken only once."""
    member, activate, pull = caller.member(front, "overheard"), "/v1/fleet/activate-node", "/v1/fleet/pull-messages"
    assert caller.ask("POST", activate, fleet_request(activate, member, 0), fleet_headers(member))[0] == 200
    node = int(str(front.fleet.registry.client("overheard").node_id))
    asked, headers = fleet_request(pull, member, node), fleet_headers(member)
    assert caller.ask("POST", pull, asked, headers)[0] == 200
    leave = "/v1/fleet/deactivate-node"
    for path, body in ((pull, asked), (leave, fleet_request(leave, member, node))):
        for sender in (caller, front.caller()):
            sender.connection.close()
            assert sender.refused("POST", path, body, headers) == (401, REPLAYED)
    caller.connection.close()
    assert caller.ask("POST", pull, asked, fleet_headers(member))[0] == 200


def test_a_supernode_with_a_key_that_is_not_enrolled_ends_and_is_no_node(front: Front, tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    key = make_key(paths)
    node = Process(
        tmp_path / "node.log", sys.executable, "-m", "client.supernode",
        "--superlink", front.server.address, "--root-certificates", front.authority,
        "--auth-supernode-private-key", paths.key, "--isolation", "process", "--host", "127.0.0.1", "--port", 0,
    )  # fmt: skip
    assert node.popen.wait(120) != 0
    assert not front.known_to_flower(public_pem(key))


# -- device routes ---------------------------------------------------------------------------------------------


def test_a_request_must_be_signed_now_for_this_by_a_member(front: Front, caller: Caller) -> None:
    key, path = caller.member(front, "asker"), "/v1/device/model"
    newest = front.fleet.registry.newest_model()
    headers = sign(key, "GET", path)
    assert json.loads(caller.ask("GET", path, headers=headers)[1]) == {"sha256": newest}
    other, fresh = sign(key, "GET", path), sign(key, "GET", path)
    stranger = ec.generate_private_key(ec.SECP384R1())
    kept = str(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5 * LIFETIME_S))
    for changed, reason in (
        ({}, "not signed"),
        (headers, "made before"),
        (fresh | {SIGNATURE: other[SIGNATURE]}, "does not fit"),
        (fresh | {ONCE: "0" * 32}, "does not fit"),
        (fresh | {TIME: kept}, "set the clock"),
        (sign(key, "GET", f"/v1/device/models/{newest}"), "does not fit"),
        (sign(key, "POST", path), "does not fit"),
        (sign(key, "GET", path, b"{}"), "does not fit"),
    ):
        status, said = caller.refused("GET", path, headers=changed)
        assert status == 401 and reason in said, said
    status, said = caller.refused("GET", path, headers=sign(stranger, "GET", path))
    assert (status, said) == (403, "this key is not enrolled")
    assert caller.ask("GET", path, headers=fresh)[0] == 200  # what was refused used nothing up
    assert caller.ask("GET", path, headers=other | {"host": "127.0.0.1/?"})[0] in (200, 400)


def test_a_revoked_client_is_refused_everywhere(front: Front, caller: Caller) -> None:
    key, path, activate = caller.member(front, "leaver"), "/v1/device/model", "/v1/fleet/activate-node"
    assert front.known_to_flower(public_pem(key))
    run("mcoe-server", "clients", "revoke", "leaver", "--dir", front.server.folder)
    caller.connection.close()  # the command took longer than an idle connection is kept
    assert caller.refused("GET", path, headers=sign(key, "GET", path))[0] == 403
    assert not front.known_to_flower(public_pem(key))
    assert 400 <= caller.ask("POST", activate, fleet_request(activate, key, 0), fleet_headers(key))[0] < 500


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY, 400), (MAX_BODY + 1, 413)])
def test_a_long_body_is_refused(caller: Caller, size: int, status: int) -> None:
    key, path, body = ec.generate_private_key(ec.SECP384R1()), "/v1/device/enrol", b"x" * size
    assert caller.refused("POST", path, body, sign(key, "POST", path, body))[0] == status


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "\\ud800"}', b'{"token": NaN}', b"\xff", b"[" * 16_000],
)
def test_nonsense_enrols_nobody(caller: Caller, body: bytes) -> None:
    key, path = ec.generate_private_key(ec.SECP384R1()), "/v1/device/enrol"
    assert caller.refused("POST", path, body, sign(key, "POST", path, body))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/device/", 404),
        ("GET", "/v1/device/nothing", 404),
        ("POST", "/v1/device/authority", 405),
        ("GET", "/v1/device/forget", 405),
        ("GET", "/v1/device/enrol", 405),
    ],
)
def test_what_is_no_device_route_is_refused(caller: Caller, method: str, path: str, status: int) -> None:
    assert caller.refused(method, path)[0] == status


def test_many_requests_of_one_address_are_refused_and_other_addresses_are_not(front: Front, caller: Caller) -> None:
    """Whatever the requests say about whom they are made for."""
    answers = [
        caller.ask("GET", "/v1/device/authority", headers={"x-forwarded-for": f"10.0.0.{index}"})[0]
        for index in range(PER_MINUTE + 5)
    ]
    assert answers[:PER_MINUTE] == [200] * PER_MINUTE
    assert set(answers[PER_MINUTE:]) == {429}
    assert caller.refused("GET", "/v1/device/authority")[0] == 429
    assert front.caller().ask("GET", "/v1/device/authority")[0] == 200


# -- invitations -----------------------------------------------------------------------------------------------


def test_an_invitation_enrols_one_key(front: Front, caller: Caller) -> None:
    """Which may ask again, when it did not hear the answer."""
    path, body = "/v1/device/enrol", json.dumps({"token": front.invite("once").token}).encode()
    key, another = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    for _ in range(2):
        assert json.loads(caller.ask("POST", path, body, sign(key, "POST", path, body))[1]) == {"client_id": "once"}
    assert front.known_to_flower(public_pem(key))
    status, said = caller.refused("POST", path, body, sign(another, "POST", path, body))
    assert status == 403 and "used before" in said
    assert not front.known_to_flower(public_pem(another))


def test_an_invitation_that_is_unknown_or_expired_enrols_nobody(front: Front, caller: Caller) -> None:
    path, key = "/v1/device/enrol", ec.generate_private_key(ec.SECP384R1())
    late = front.invite("late")
    with front.fleet.registry.engine.begin() as connection:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
        connection.execute(sa.update(ClientTable).where(ClientTable.id == "late").values(token_expires=before))
    for token, reason in ((late.token, "expired"), ("guess" * 6, "unknown"), ("", "unknown")):
        body = json.dumps({"token": token}).encode()
        status, said = caller.refused("POST", path, body, sign(key, "POST", path, body))
        assert status == 403 and reason in said
    assert not front.known_to_flower(public_pem(key))


def test_the_route_that_enrols_is_closed_while_no_invitation_is_open(front: Front, caller: Caller) -> None:
    path, token = "/v1/device/enrol", front.invite("last").token
    key, stranger = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    body = json.dumps({"token": token}).encode()
    assert caller.ask("POST", path, body, sign(key, "POST", path, body))[0] == 200
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    with front.fleet.registry.engine.begin() as connection:
        open_ones = sa.update(ClientTable).where(ClientTable.state == "invited")
        connection.execute(open_ones.values(token_expires=before))
    guess = json.dumps({"token": "guess" * 6}).encode()
    for asked, headers in ((guess, sign(stranger, "POST", path, guess)), (guess, {}), (b"", {})):
        status, said = caller.refused("POST", path, asked, headers)
        assert (status, said) == (403, "this server enrols nobody at the moment; ask its operator")
    again = caller.ask("POST", path, body, sign(key, "POST", path, body))  # it did not hear the answer
    assert (again[0], json.loads(again[1])) == (200, {"client_id": "last"})
    front.invite("expected")
    assert "unknown" in caller.refused("POST", path, guess, sign(stranger, "POST", path, guess))[1]


def test_consents_that_come_with_an_enrolment_are_kept(front: Front, caller: Caller) -> None:
    path, key = "/v1/device/enrol", ec.generate_private_key(ec.SECP384R1())
    agreed = {"kind": "updates", "version": "2", "given": "2026-11-21T09:00:00+00:00"}
    token = front.invite("agreed").token
    for consents, status in (([agreed | {"version": "I agree to all"}], 400), ([agreed], 200)):
        body = json.dumps({"token": token, "consents": consents}).encode()
        assert caller.ask("POST", path, body, sign(key, "POST", path, body))[0] == status
    (listed,) = [client for client in front.server.ask("clients", "list") if client["id"] == "agreed"]
    assert [(one["kind"], one["version"], one["withdrawn"]) for one in listed["consents"]] == [("updates", "2", None)]


def test_the_command_that_joins_says_what_the_wearer_agreed_to(front: Front, tmp_path: Path) -> None:
    folder = ("--dir", tmp_path / "wearable")
    run("mcoe-client", "wearer", "new", "P01", "--keyfile", *folder)
    run("mcoe-client", "consent", "--give", "learning", "--give", "updates", "--give", "labels", *folder)
    run("mcoe-client", "consent", "--withdraw", "labels", *folder)
    run("mcoe-client", "enrol", front.invite("consenting").to_line(), *folder)
    consents = front.fleet.registry.client("consenting").consents
    assert {one.kind for one in consents} == {"learning", "updates"}
    run("mcoe-client", "enrol", front.invite("folder").to_line(), "--clips", tmp_path, "--subject", "001",
        "--dir", tmp_path / "folder")  # fmt: skip
    assert not front.fleet.registry.client("folder").consents


def test_who_joins_beside_a_wearable_that_runs_says_nothing_before_the_first_visit_and_then_what_was_agreed_to(
    front: Front, tmp_path: Path
) -> None:
    wearable = RealWearable(tmp_path / "wearable")
    try:
        wearable.start()
        wearable.command("enrol", front.invite("early").to_line())
        assert not front.fleet.registry.client("early").consents
    finally:
        wearable.remove()
    later = RealWearable(tmp_path / "later")
    try:
        run("mcoe-client", "wearer", "new", "P01", "--keyfile", "--dir", later.folder)
        later.start()
        later.command("consent", "--give", "updates")
        later.command("enrol", front.invite("late-comer").to_line())
        assert [one.kind for one in front.fleet.registry.client("late-comer").consents] == ["updates"]
    finally:
        later.remove()


def test_nobody_enrols_a_key_that_is_not_theirs(front: Front, caller: Caller) -> None:
    path, body = "/v1/device/enrol", json.dumps({"token": front.invite("borrowed").token}).encode()
    ours, theirs = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    borrowed = sign(ours, "POST", path, body) | {"mcoe-key": sign(theirs, "POST", path, body)["mcoe-key"]}
    assert caller.refused("POST", path, body, borrowed)[0] == 401
    assert front.fleet.registry.client("borrowed").state == "invited"


def test_a_wearable_told_of_another_authority_sends_nothing(front: Front, tmp_path: Path) -> None:
    invitation = front.invite("cautious")
    wrong = Invitation(invitation.address, "0" * 64, invitation.token, invitation.client_id)
    with pytest.raises(DataInvalid, match="nothing was sent"):
        enrol(ClientPaths(tmp_path), wrong, tmp_path, "001")
    assert front.fleet.registry.client("cautious").state == "invited"


def test_many_wearables_enrol_at_once(front: Front) -> None:
    names = [f"crowd{index}" for index in range(8)]
    callers = [front.caller() for _ in names]
    with ThreadPoolExecutor(len(names)) as threads:
        keys = list(threads.map(lambda caller, name: caller.member(front, name), callers, names))
    assert all(front.known_to_flower(public_pem(key)) for key in keys)


# -- models ----------------------------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke_off(front: Front, wearable: ClientPaths) -> None:
    path = download_model(wearable, front.server.address)
    whole = path.read_bytes()
    partial = path.with_suffix(".partial")
    for kept in (whole[: len(whole) // 2], whole):
        path.unlink()
        partial.write_bytes(kept)
        assert download_model(wearable, front.server.address).read_bytes() == whole
        assert not partial.exists()
    path.unlink()
    partial.write_bytes(b"?" * (len(whole) // 2))
    with pytest.raises(DataInvalid, match="damaged"):
        download_model(wearable, front.server.address)
    assert not path.exists()
    assert download_model(wearable, front.server.address).read_bytes() == whole


def test_the_server_sends_the_bytes_that_are_missing(front: Front, caller: Caller, wearable: ClientPaths) -> None:
    key, newest = read_key(wearable), front.fleet.registry.newest_model()
    path = f"/v1/device/models/{newest}"
    whole = front.fleet.artifacts.path(str(newest)).read_bytes()
    status, said = caller.ask("GET", path, headers=sign(key, "GET", path) | {"range": f"bytes={len(whole) - 10}-"})
    assert (status, said) == (206, whole[-10:])


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fregistry.sqlite", "%2e%2e/registry.sqlite", "../registry.sqlite", "..%5cregistry.sqlite", "0" * 64,
     "%00", "/etc/passwd", "%2fetc%2fpasswd", "F" * 64, "x.safetensors", ""],
)  # fmt: skip
def test_nothing_but_a_models_hash_names_a_file(caller: Caller, wearable: ClientPaths, name: str) -> None:
    target = f"/v1/device/models/{name}"
    plain = httpx.URL(f"https://x{target}").path if "%" in name else target
    assert caller.refused("GET", target, headers=sign(read_key(wearable), "GET", plain))[0] in (401, 404)


# -- what leaves a trail ---------------------------------------------------------------------------------------


def push(caller: Caller, key: ec.EllipticCurvePrivateKey, node: int, metadata: Metadata) -> tuple[int, bytes]:
    """Push a message with this metadata through the public port."""
    message = FlowerMessage(metadata=metadata, content=RecordDict())
    request = PushMessagesRequest(
        node=FlowerNode(node_id=node), messages_list=[message], message_object_trees=[ObjectTree(object_id="0" * 64)]
    )
    return caller.ask("POST", "/v1/fleet/push-messages", bytes(request.SerializeToString()), fleet_headers(key))


def test_a_wearable_that_runs_hears_that_it_is_lost_and_keeps_everything(front: Front, tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path / "lost")
    enrol(paths, front.invite("lost"), front.data, "001")
    command = BIN / "mcoe-client", "--device", "none", "--dir", paths.folder
    member = Process(tmp_path / "lost.log", *command)
    try:
        wait_for(lambda: front.fleet.registry.client("lost").last_seen is not None, 120, "its first check-in")
        kept = [paths.key, paths.membership, paths.device_key, *paths.models.iterdir()]
        run("mcoe-server", "clients", "revoke", "lost", "--lost", "--dir", front.server.folder)
        wait_for(lambda: member.popen.poll() is not None, 120, "its end")
        assert member.popen.returncode == ExitCode.ENROLMENT_REFUSED, member.said()
        assert "reported lost" in member.said() and ToldFile(paths.told).read().lost
        assert all(path.exists() for path in kept)
    finally:
        member.end()


def test_what_is_refused_is_in_the_audit_trail(front: Front, caller: Caller) -> None:
    """Messages in another's name do not get to Flower, and a copied key is found out. The last test of its server."""
    registry, activate, pull = front.fleet.registry, "/v1/fleet/activate-node", "/v1/fleet/pull-messages"
    key, victim = caller.member(front, "sender"), caller.member(front, "victim")
    nodes = {}
    for name, owner in (("sender", key), ("victim", victim)):
        assert caller.ask("POST", activate, fleet_request(activate, owner, 0), fleet_headers(owner))[0] == 200
        nodes[name] = int(str(registry.client(name).node_id))
    turned_away = time.monotonic()  # the same key from another place
    assert front.caller().ask("POST", activate, fleet_request(activate, key, 0), fleet_headers(key))[0] == 412

    with closing(sqlite3.connect(front.paths.superlink)) as database:
        found = database.execute("SELECT run_id FROM run ORDER BY rowid DESC LIMIT 1").fetchone()
        said = Metadata(
            run_id=found[0] % 2**64, message_id="1" * 64, src_node_id=1, dst_node_id=nodes["victim"],
            message_type="query", ttl=600.0, created_at=time.time(),
        )  # fmt: skip
        assert push(caller, key, nodes["sender"], said)[0] == 403
        said.src_node_id, said.reply_to_message_id = nodes["victim"], "2" * 64
        assert push(caller, key, nodes["sender"], said)[0] == 403
        assert database.execute("SELECT COUNT(*) FROM message_ins WHERE message_id = ?", ("1" * 64,)).fetchone() == (0,)
    said.src_node_id, said.dst_node_id = nodes["sender"], 1
    assert push(caller, key, nodes["sender"], said)[0] == 200  # Flower says so also of what it does not take
    said.run_id = 7  # which there never was
    assert push(caller, key, nodes["sender"], said)[0] == 500
    assert caller.refused("GET", "/v1/device/model", headers=sign(key, "GET", "/v1/device/models"))[0] == 401

    time.sleep(max(0.0, turned_away + GRACE_S + 0.5 - time.monotonic()))
    caller.connection.close()
    assert caller.ask("POST", pull, fleet_request(pull, key, nodes["sender"]), fleet_headers(key))[0] == 200
    os.kill(front.server.child("superlink"), signal.SIGTERM)
    wait_for(lambda: len(registry.events(99, "sender", "key in two")) == 1, 90, "the row of the copied key")
    rows = {(event.kind, event.detail) for event in registry.events(99, "sender") if "refused" in event.kind}
    assert {detail for kind, detail in rows if kind == "reply refused"} == {UNASKED}
    assert {detail for kind, detail in rows if kind == "request refused"} == {
        TURNED_AWAY, f"{FORGED} (2 times)", "the signature does not fit the request",
        "Flower: a message of a run that there never was, or a fault of its own",
    }  # fmt: skip
    assert registry.events(99, "victim", "refused") == []
