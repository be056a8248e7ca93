"""A request of Flower's routes is taken once, whoever sends it again and however it is written."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from server.superlink.once import GOOD_FOR_S, REPLAYED, once

PULL, KEY = "/v1/fleet/pull-messages", ec.generate_private_key(ec.SECP384R1())
#: The order of the curve's group.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


class Flower:
    """Stands for Flower behind the front, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.status, self.now, self.seen = 200, 0.0, 0

        async def answer(request: Request) -> PlainTextResponse:
            self.seen += 1
            return PlainTextResponse("", self.status)

        app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path in (PULL, "/health")])
        self.caller = TestClient(once(app, lambda: self.now))

    def ask(self, signature: bytes, path: str = PULL) -> int:
        headers = {FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode()}
        return self.caller.post(path, headers=headers).status_code


def signed() -> bytes:
    return KEY.sign(b"2026-11-21T12:00:00+00:00", ec.ECDSA(hashes.SHA256()))


def test_what_was_taken_is_not_taken_again() -> None:
    flower, first = Flower(), signed()
    assert (flower.ask(first), flower.ask(signed()), flower.ask(first)) == (200, 200, 401)
    said = flower.caller.post(PULL, headers={FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(first).decode()})
    assert said.json() == {"error": REPLAYED} and flower.seen == 2


def test_the_same_signature_written_in_another_way_is_the_same() -> None:
    flower, first = Flower(), signed()
    r, s = decode_dss_signature(first)
    other = encode_dss_signature(r, ORDER - s)
    KEY.public_key().verify(other, b"2026-11-21T12:00:00+00:00", ec.ECDSA(hashes.SHA256()))  # it fits as well
    assert (flower.ask(first), flower.ask(other)) == (200, 401)


def test_it_is_remembered_for_as_long_as_flower_would_take_it() -> None:
    flower, first = Flower(), signed()
    flower.ask(first)
    flower.now = GOOD_FOR_S
    assert flower.ask(first) == 401
    flower.now = GOOD_FOR_S + 1
    assert flower.ask(first) == 200


def test_what_was_refused_is_judged_anew() -> None:
    flower, first = Flower(), signed()
    flower.status = 412
    assert flower.ask(first) == 412
    flower.status = 200
    assert (flower.ask(first), flower.ask(first)) == (200, 401)


def test_nothing_else_is_looked_at() -> None:
    flower, first = Flower(), signed()
    assert [flower.ask(first, "/health") for _ in range(2)] == [200, 200]
    assert [flower.ask(b"no signature") for _ in range(2)] == [200, 200]  # Flower refuses these
    assert [flower.caller.post(PULL).status_code for _ in range(2)] == [200, 200]
