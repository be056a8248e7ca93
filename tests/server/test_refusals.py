"""What is refused leaves a trail: one row a minute for each reason and client, however often it was refused."""

from __future__ import annotations

import datetime
import json
import secrets
from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient

from mcoe_model.signed_request import KEY, TIME, public_pem, sign
from server.device_routes import MAX_BODY, PER_MINUTE, device_routes
from server.experiments import Experiments
from server.fleet import Fleet
from server.paths import ServerPaths
from server.refusals import MOST, Refusals
from server.registry import Refusal, Registry, utc_now
from server.superlink.watched import GRACE_S, REMEMBERED_S, Twins

MODEL, ENROL = "/v1/device/model", "/v1/device/enrol"


def trail(registry: Registry) -> list[tuple[str, str | None, str]]:
    return sorted(
        ((event.kind, event.client_id, event.detail) for event in registry.events(100) if "client" not in event.kind),
        key=str,
    )


def test_a_minute_leaves_one_row_for_each_reason_and_client(registry: Registry) -> None:
    other = Registry(registry.engine, "other")
    registry.add_client("a", "key a", None)
    other.add_client("b", "key b", None)
    counted = {
        Refusal("request refused", "not signed"): 400,
        Refusal("request refused", "not signed", "a stranger's key"): 30,
        Refusal("request refused", "not signed", "key a"): 2,
        Refusal("reply refused", "unasked", "key b"): 1,
    }
    registry.record_refusals(counted, ["contract", "other"])
    nobody = ("request refused", None, "not signed (430 times)")
    assert trail(registry) == sorted([("request refused", "a", "not signed (2 times)"), nobody], key=str)
    assert trail(other) == sorted([("reply refused", "b", "unasked"), nobody], key=str)


def test_a_client_that_has_left_is_still_named_and_one_that_is_forgotten_is_not(registry: Registry) -> None:
    registry.add_client("a", "key a", None)
    registry.revoke("a")
    registry.record_refusals({Refusal("request refused", "not enrolled", "key a"): 1}, ["contract"])
    assert trail(registry) == [("request refused", "a", "not enrolled")]
    registry.forget("a")
    assert trail(registry) == [("request refused", None, "not enrolled")]


def test_rows_that_anybody_can_make_pass_with_the_retention_time_and_others_stay(registry: Registry) -> None:
    registry.record_refusals({Refusal("key in two places", "copied"): 3}, ["contract", "other"])
    registry.audit("model held", None, "not finite")
    assert registry.prune(utc_now() + datetime.timedelta(days=29), 30).refusals == 0
    assert registry.prune(utc_now() + datetime.timedelta(days=31), 30).refusals == 1
    assert [event.kind for event in registry.events(9)] == ["model held"]
    assert len(Registry(registry.engine, "other").events(9)) == 1


def test_whoever_makes_up_keys_fills_neither_memory_nor_table() -> None:
    refusals = Refusals()
    for _ in range(3 * MOST):
        refusals.note(Refusal("request refused", "not enrolled", secrets.token_hex(8)))
    counted = refusals.take()
    assert len(counted) == MOST + 1 and sum(counted.values()) == 3 * MOST
    assert counted[Refusal("request refused", "not enrolled")] == 2 * MOST
    assert refusals.take() == Counter()


# -- the device routes -----------------------------------------------------------------------------------------


def test_every_refusal_of_a_device_route_is_noted_by_a_reason_that_says_nothing_of_its_sender(
    registry: Registry, tmp_path: Path
) -> None:
    refusals, key = Refusals(), ec.generate_private_key(ec.SECP384R1())
    registry.add_client("a", public_pem(key), None)
    registry.invite("b", "hash", utc_now() + datetime.timedelta(hours=1))
    experiments = Experiments([Fleet(registry, ServerPaths(tmp_path), "127.0.0.1:1")])
    used = tmp_path / "used"
    app = device_routes(experiments, tmp_path, used, refusals.note, enrolment=True, forgetting="keep")
    asked = TestClient(app)
    stranger = ec.generate_private_key(ec.SECP384R1())
    late = str(utc_now() - datetime.timedelta(minutes=9))
    agreed = {"kind": "updates", "version": "my name is Eve", "given": "2026-11-21T09:00:00+00:00"}
    unreadable = json.dumps({"token": "t", "consents": [agreed]}).encode()
    for _ in range(3):
        assert asked.get(MODEL).status_code == 401
        assert asked.get(MODEL, headers=sign(key, "GET", MODEL) | {TIME: late}).status_code == 401
        assert asked.get(MODEL, headers=sign(key, "POST", MODEL)).status_code == 401
        assert asked.get(MODEL, headers=sign(stranger, "GET", MODEL)).status_code == 403
        assert asked.post(ENROL, content=b"x", headers=sign(stranger, "POST", ENROL, b"x")).status_code == 400
        assert asked.post(ENROL, content=unreadable, headers=sign(key, "POST", ENROL, unreadable)).status_code == 400
        assert asked.post(ENROL, content=b"x" * (MAX_BODY + 1)).status_code == 413
        assert asked.get(f"/v1/device/{secrets.token_hex(4)}").status_code == 404
        assert asked.delete(MODEL).status_code == 405
        headers = {KEY: "\x7f\x00 is no key"}
        assert asked.get(MODEL, headers=headers).status_code == 401
    for _ in range(PER_MINUTE):
        status = asked.get(MODEL).status_code
    assert status == 429
    registry.record_refusals(refusals.take(), ["contract"])
    rows = trail(registry)
    assert {kind for kind, _, _ in rows} == {"request refused"}
    assert {(client, detail) for _, client, detail in rows if client} == {
        ("a", "signed by a clock that is wrong (3 times)"),
        ("a", "the signature does not fit the request (3 times)"),
        ("a", "consents that cannot be read (3 times)"),
    }
    unknown = [detail for _, client, detail in rows if client is None]
    for reason in ("not signed", "this key is not enrolled (3", "invitation's token (3", "may have", "Not Found (3",
                   "Not Allowed (3", "too many requests"):  # fmt: skip
        assert any(reason in detail for detail in unknown), (reason, unknown)
    assert len(unknown) == 7 and "Eve" not in str(rows)


# -- two nodes with one key ------------------------------------------------------------------------------------


def test_a_node_that_goes_on_after_another_of_its_key_was_turned_away_is_told_once() -> None:
    twins = Twins()
    assert not twins.alive("key", 0.0)
    twins.turned_away("key", 0.0)
    twins.turned_away("key", 9.0)
    assert not twins.alive("key", GRACE_S - 1)
    assert not twins.alive("another key", GRACE_S)
    assert twins.alive("key", GRACE_S)
    assert not twins.alive("key", GRACE_S + 1)


def test_a_node_that_was_killed_and_its_successor_are_no_two() -> None:
    """The server takes the killed one for online: its successor is turned away until it is let in, or signed off."""
    twins = Twins()
    twins.turned_away("key", 0.0)
    twins.turned_away("key", 40.0)
    twins.came_or_left("key")
    assert not twins.alive("key", 65.0)
    twins.turned_away("key", 100.0)
    assert not twins.alive("key", 100.0 + REMEMBERED_S)
