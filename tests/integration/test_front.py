"""What the running server lets in: every route, every way to ask wrongly, and what is left in files afterwards.

Requests come from addresses of their own (127.0.0.2, .3, ...), since the server counts them by address.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from real_fleet import Client, Process, Server, make_base, make_data, run, wait_for

from client.enrolment import ClientPaths, download_model, enrol, make_key, read_key
from mcoe_model.errors import DataInvalid, ExitCode
from mcoe_model.invitation import Invitation
from mcoe_model.names import EMOTIONS
from mcoe_model.signed_request import LIFETIME_S, ONCE, SIGNATURE, TIME, public_pem, sign
from server.certificates import fingerprint, make_authority, read_certificate
from server.device_routes import MAX_BODY, PER_MINUTE
from server.fleet import open_fleet
from server.registry.tables import Client as ClientTable
from server.settings import ServerPaths, load_settings
from server.superlink.control import Control

FLAGS = ("--min-clients", 1, "--pause-s", 3600, "--deadline-s", 600)
PUBLIC = ("/v1/fleet/", "/v1/device/", "/health")
PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE}

#: Invitations that were made; none of their tokens may turn up in a log.
invitations: list[Invitation] = []
hosts = itertools.count(2)


class Front:
    """A running server, and its fleet as the server itself sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = make_data(folder / "data")
        self.server = Server(folder / "server", make_base(self.data, folder / "base.safetensors"))
        self.server.start(*FLAGS)
        self.paths = ServerPaths(self.server.folder)
        self.fleet = open_fleet(self.paths, load_settings(self.paths, {}))
        self.authority = self.paths.certificates / "ca.crt"

    def invite(self, client: str) -> Invitation:
        made = self.fleet.invite(self.server.address, fingerprint(read_certificate(self.authority)), client)
        invitations.append(made)
        return made

    def known_to_flower(self, key: str) -> bool:
        with closing(Control(self.fleet.control_address)) as control:
            return key in control.nodes()

    def caller(self) -> Caller:
        return Caller(self.server.port, ssl.create_default_context(cafile=str(self.authority)))


class Caller:
    """Somebody at an address of its own who sends exactly the bytes that the test says."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.host = f"127.0.0.{next(hosts)}"
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=60, context=context, source_address=(self.host, 0)
        )

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:  # fmt: skip
        self.connection.putrequest(method, target, skip_host="host" in (headers or {}))
        for name, value in ({"content-length": str(len(body))} | dict(headers or {})).items():
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def refused(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:  # fmt: skip
        """Status and reason; every refusal of a device route is one line of JSON."""
        status, said = self.ask(method, target, body, headers)
        assert status >= 400, said
        error = json.loads(said)["error"]
        assert isinstance(error, str) and len(error.splitlines()) == 1
        return status, error

    def member(self, front: Front, client: str) -> ec.EllipticCurvePrivateKey:
        """A key that is enrolled under this name."""
        key = ec.generate_private_key(ec.SECP384R1())
        body = json.dumps({"token": front.invite(client).token}).encode()
        status, said = self.ask("POST", "/v1/device/enrol", body, sign(key, "POST", "/v1/device/enrol", body))
        assert (status, json.loads(said)) == (200, {"client_id": client})
        return key


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    made = Front(tmp_path_factory.mktemp("front"))
    yield made
    if made.server.process is not None:
        made.server.process.end()


@pytest.fixture
def caller(front: Front) -> Iterator[Caller]:
    made = front.caller()
    yield made
    made.connection.close()


# -- routes ---------------------------------------------------------------------------------------------------


def routes(front: Front) -> set[str]:
    """Every route of the running SuperLink: those that it lists, those that it does not, and those of its protocol."""
    listed = set(httpx.get(f"{front.server.local}/openapi.json", timeout=60).json()["paths"])
    unlisted = {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"}
    return listed | unlisted | {path for _, path in PROTOBUF_REQUEST_TYPES}


def spellings(route: str) -> list[str]:
    """Other ways to write a route that some servers take for it."""
    tail = route.removeprefix("/v1")
    letter = f"%{ord(route[-1]):02x}"
    return [
        route,
        route + "/",
        "/" + route,
        "//127.0.0.1" + route,
        route.upper(),
        route.replace("/", "//"),
        route[:-1] + letter,
        "/" + quote(route[1:], safe=""),
        route + "?x=/v1/fleet/",
        route + "#/v1/fleet/",
        route + ";/v1/fleet/",
        "/./" + route[1:],
        f"/v1/fleet/..{tail}",
        f"/v1/fleet/%2e%2e{tail}",
        f"/v1/fleet/..%2f{tail[1:]}",
        f"/v1/fleet/../..{route}",
        f"/v1/fleet/..\\{tail[1:]}",
        f"/v1/fleet{route}",
        f"/v1/device/..{tail}",
        f"/v1/device/..%2f..{route}",
        f"/health/..{route}",
        f"/health{route}",
        f"https://127.0.0.1{route}",
    ]


def test_every_route_but_those_for_wearables_is_refused_however_it_is_spelt(front: Front, caller: Caller) -> None:
    hidden = sorted(route for route in routes(front) if not route.startswith(PUBLIC))
    assert sum(route.startswith("/v1/control/") for route in hidden) > 30
    assert sum(route.startswith("/v1/runtime/") for route in hidden) > 10
    reached = []
    for route in hidden:
        for spelling in spellings(route):
            for method in ("POST", "GET"):
                status, _ = caller.ask(method, spelling, headers=PROTOBUF)
                if status != 404:
                    reached.append((status, method, spelling))
    assert reached == []


def test_those_routes_are_there_on_loopback(front: Front) -> None:
    """Otherwise that they are refused in public would mean nothing."""
    with httpx.Client(base_url=front.server.local, timeout=60) as local:
        assert local.post("/v1/control/list-nodes", headers=PROTOBUF).status_code == 200
        for route in sorted(path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/runtime/")):
            assert local.post(route, headers=PROTOBUF).status_code not in (200, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1/v1/fleet/x?"},
        {"x-forwarded-prefix": "/v1/fleet", "x-original-url": "/v1/fleet/get-run", "x-rewrite-url": "/health"},
        {"x-http-method-override": "GET", "x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"},
        {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13", "sec-websocket-key": "eA=="},
    ],
)
def test_no_header_opens_a_route(caller: Caller, headers: dict[str, str]) -> None:
    assert caller.ask("POST", "/v1/control/list-nodes", headers=PROTOBUF | headers)[0] in (400, 403, 404)


def test_the_public_routes_answer(front: Front, caller: Caller) -> None:
    assert caller.ask("GET", "/health")[0] == 200
    assert caller.ask("GET", "/v1/device/authority") == (200, front.authority.read_bytes())


# -- the port -------------------------------------------------------------------------------------------------


def test_plain_text_is_not_understood(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.server.port), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        try:
            said = plain.recv(1000)
        except ConnectionResetError:
            said = b""
    assert not said.startswith(b"HTTP")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_older_than_1_2_is_refused(front: Front) -> None:
    """By a caller that would speak it: it reaches a server that allows everything."""

    def ready(context: ssl.SSLContext, oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> ssl.SSLContext:
        context.minimum_version, context.maximum_version = oldest, newest
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context

    old = ready(ssl.create_default_context(cafile=str(front.authority)), ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    lax = ready(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_3)
    lax.load_cert_chain(front.paths.certificates / "server.crt", front.paths.certificates / "server.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = old.wrap_bio(down, up, server_hostname="127.0.0.1"), lax.wrap_bio(up, down, server_side=True)
    for side in (ours, theirs) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.version() == "TLSv1.1"

    def version(context: ssl.SSLContext) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", front.server.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return secured.version()

    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        version(old)
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        allowed = ssl.create_default_context(cafile=str(front.authority))
        allowed.maximum_version = newest
        assert version(allowed) == newest.name.replace("_", ".")


def test_who_trusts_another_authority_does_not_talk_to_this_server(front: Front, tmp_path: Path) -> None:
    make_authority(tmp_path)
    stranger = Caller(front.server.port, ssl.create_default_context(cafile=str(tmp_path / "ca.crt")))
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.ask("GET", "/health")


def listeners(port: int) -> list[str]:
    """The addresses at which anybody listens on this port, from the kernel's own list."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        address, number = local.split(":")
        if int(number, 16) == port and state == "0A":
            found.append(socket.inet_ntoa(struct.pack("=I", int(address, 16))))
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        if int(local.split(":")[1], 16) == port and state == "0A":
            found.append(local)
    return found


def test_what_is_for_this_machine_listens_on_loopback_alone(front: Front) -> None:
    settings = load_settings(front.paths, {})
    for port in (settings.local_port, settings.dashboard_port):
        wait_for(lambda port=port: bool(listeners(port)), 60, f"listening on {port}")  # type: ignore[misc]
        assert listeners(port) == ["127.0.0.1"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=60)


# -- keys that are no member's --------------------------------------------------------------------------------


def fleet_headers(key: ec.EllipticCurvePrivateKey, age_s: float = 0.0) -> dict[str, str]:
    """The headers with which a SuperNode signs a request."""
    signed_at = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)).isoformat()
    return PROTOBUF | {
        "flwr-timestamp": signed_at,
        FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public_pem(key).encode()).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(sign_message(key, signed_at.encode("ascii"))).decode(),
    }


def fleet_request(route: str, key: ec.EllipticCurvePrivateKey, node: int) -> bytes:
    """A request to this route in the name of a node."""
    request = PROTOBUF_REQUEST_TYPES["POST", route]()
    if hasattr(request, "public_key"):
        request.public_key = public_pem(key).encode()
    if hasattr(request, "node"):
        request.node.node_id = node
    elif hasattr(request, "node_id"):
        request.node_id = node
    if hasattr(request, "heartbeat_interval"):
        request.heartbeat_interval = 30
    return bytes(request.SerializeToString())


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


def test_a_supernode_with_a_key_that_is_not_enrolled_ends_and_is_no_node(front: Front, tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    key = make_key(paths)
    node = Process(
        tmp_path / "node.log", sys.executable, "-m", "client.node",
        "--superlink", front.server.address, "--root-certificates", front.authority,
        "--auth-supernode-private-key", paths.key, "--isolation", "process", "--host", "127.0.0.1", "--port", 0,
    )  # fmt: skip
    assert node.popen.wait(120) != 0
    assert not front.known_to_flower(public_pem(key))


# -- device routes --------------------------------------------------------------------------------------------


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


# -- invitations ----------------------------------------------------------------------------------------------


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


# -- models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wearable(front: Front) -> ClientPaths:
    paths = ClientPaths(front.folder / "wearable")
    enrol(paths, front.invite("wearable"), front.data, "001")
    return paths


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


# -- leaving --------------------------------------------------------------------------------------------------


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
    assert caller.refused("POST", path, headers=sign(key, "POST", path))[0] == 403


# -- after a loss ---------------------------------------------------------------------------------------------


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
