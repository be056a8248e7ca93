"""The public port of a running server: every route, however it is spelt, and who is understood there."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from front_server import PER_MINUTE_FLEET, PROTOBUF, PUBLIC, Caller, Front, routes
from real_fleet import wait_for

from server.certificates import make_authority
from server.settings_file import load_settings


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
    asked = [("POST", spelling) for route in hidden for spelling in spellings(route)]
    asked += [("GET", route) for route in hidden]
    asked += [("GET", spelling) for route in hidden[::10] for spelling in spellings(route)]
    reached = []
    for method, spelling in asked:
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


# -- the port --------------------------------------------------------------------------------------------------


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


# -- limits ---------------------------------------------------------------------------------------------------


TOO_LONG = {"error": f"a request may have {1 << 20} bytes"}


def test_a_body_of_flowers_routes_that_says_it_is_too_long_is_not_waited_for(caller: Caller) -> None:
    connection = caller.connection
    connection.putrequest("POST", "/v1/fleet/push-messages")
    for name, value in (PROTOBUF | {"content-length": str((1 << 20) + 1)}).items():
        connection.putheader(name, value)
    connection.endheaders()  # and nothing of the body
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read()) == TOO_LONG


def test_a_body_of_flowers_routes_that_does_not_say_how_long_it_is_is_counted_while_it_arrives(caller: Caller) -> None:
    connection, part = caller.connection, b"x" * 65_536
    connection.putrequest("POST", "/v1/fleet/push-messages")
    for name, value in (PROTOBUF | {"transfer-encoding": "chunked"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(17):  # and no end
        connection.send(b"%x\r\n%b\r\n" % (len(part), part))
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read()) == TOO_LONG


def test_a_body_that_is_not_too_long_reaches_flower(caller: Caller) -> None:
    assert caller.ask("POST", "/v1/fleet/push-messages", b"x" * (1 << 20), PROTOBUF)[0] not in (404, 413, 429)


def test_many_requests_of_one_address_for_flower_are_refused_and_other_addresses_are_not(
    front: Front, caller: Caller
) -> None:
    claim = {"x-forwarded-for": "10.0.0.1"}
    assert {caller.ask("GET", "/health", headers=claim)[0] for _ in range(PER_MINUTE_FLEET)} == {200}
    for path in ("/health", "/v1/fleet/activate-node"):
        assert caller.refused("GET", path) == (429, "too many requests; try again in a minute")
        caller.connection.close()
    assert caller.ask("GET", "/v1/device/authority")[0] == 200  # ours count by themselves
    assert front.caller().ask("GET", "/health")[0] == 200
