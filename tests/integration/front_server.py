"""A running server for the tests of its public port, and somebody who asks it things.

Requests come from addresses of their own (127.0.0.2, .3, ...), since the server counts them by address.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import itertools
import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from real_fleet import Server, make_base, make_data

from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import public_pem, sign
from server.certificates import fingerprint, read_certificate
from server.fleet import open_fleet
from server.paths import ServerPaths
from server.settings_file import load_settings
from server.superlink.control import Control

FLAGS = ("--min-clients", 1, "--pause-s", 3600, "--deadline-s", 600)
PER_MINUTE_FLEET = 1000
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
        with (self.server.folder / "mcoe-server.toml").open("a") as settings:
            settings.write(f"fleet_per_minute = {PER_MINUTE_FLEET}\nfleet_body_mb = 1\n")
        self.server.start(*FLAGS)
        self.paths = ServerPaths(self.server.folder)
        self.fleet = open_fleet(self.paths, load_settings(self.paths, {}))
        self.authority = self.paths.certificates / "ca.crt"
        self.invite("expected")  # while an invitation is open, the route that enrols answers

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


def routes(front: Front) -> set[str]:
    """Every route of the running SuperLink: those that it lists, those that it does not, and those of its protocol."""
    listed = set(httpx.get(f"{front.server.local}/openapi.json", timeout=60).json()["paths"])
    unlisted = {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"}
    return listed | unlisted | {path for _, path in PROTOBUF_REQUEST_TYPES}


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
