"""The device routes without a server around them: what a setting closes, and leaving while a round is open."""

from __future__ import annotations

import datetime
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from migrated import migrated_file
from starlette.testclient import TestClient
from toy_fleet import enlist, honest_reply, toy_engine

from mcoe_model.signed_request import public_pem, sign
from server.acceptance import Accepted, Rejected
from server.cli.status import experiment_status, status_lines
from server.device_routes import device_routes
from server.experiments import Experiments
from server.fleet import Fleet, token_hash
from server.paths import ServerPaths
from server.registry import Registry, utc_now
from server.registry.database import open_database, sqlite_url
from server.registry.refusals import Refusal
from server.settings import ServerSettings


@pytest.mark.parametrize("enrolment", [True, False])
def test_the_setting_closes_enrolment_also_while_an_invitation_is_open(tmp_path: Path, enrolment: bool) -> None:
    registry = Registry(open_database(sqlite_url(migrated_file(tmp_path / "registry.sqlite"))), "fleet")
    registry.invite("a", "hash", utc_now() + datetime.timedelta(hours=1))
    experiments = Experiments([Fleet(registry, ServerPaths(tmp_path), "127.0.0.1:1")])
    routes = device_routes(
        experiments, tmp_path, tmp_path / "used", lambda refusal: None, enrolment=enrolment, forgetting="keep"
    )
    path, body = "/v1/device/enrol", json.dumps({"token": "guess" * 6}).encode()
    headers = sign(ec.generate_private_key(ec.SECP384R1()), "POST", path, body)
    answer = TestClient(routes).post(path, content=body, headers=headers)
    assert answer.status_code == 403
    assert ("enrols nobody" in answer.json()["error"]) is not enrolment
    registry.engine.dispose()


def test_every_try_to_enrol_leaves_a_row_and_no_token_is_kept_or_compared(tmp_path: Path) -> None:
    """What is compared is a token's hash: how long that takes tells nothing of any token."""
    database = migrated_file(tmp_path / "registry.sqlite")
    registry, refused = Registry(open_database(sqlite_url(database)), "fleet"), list[Refusal]()
    fleet = Fleet(registry, ServerPaths(tmp_path), "127.0.0.1:1")
    fleet.register_members = lambda: 0  # type: ignore[method-assign]  # nobody has to tell Flower
    routes = device_routes(
        Experiments([fleet]), tmp_path, tmp_path / "used", refused.append, enrolment=True, forgetting="keep"
    )
    tokens = [fleet.invite("127.0.0.1:1", "f" * 64, name).token for name in ("w1", "w2")]

    def tries(token: str) -> tuple[int, str]:
        key, path, body = ec.generate_private_key(ec.SECP384R1()), "/v1/device/enrol", json.dumps({"token": token})
        answer = TestClient(routes).post(path, content=body, headers=sign(key, "POST", path, body.encode()))
        return answer.status_code, str(answer.json())

    wrong = tokens[0][:-1] + ("a" if tokens[0][-1] != "a" else "b")
    for token in (wrong, tokens[0], tokens[0]):
        refusals = len(refused)
        status, said = tries(token)
        assert (status == 200) == (len(refused) == refusals)
        assert status == 200 or (status == 403 and refused[-1].reason in said)
    assert [event.kind for event in registry.events(9, "w1")] == ["client enrolled", "client invited"]
    registry.engine.dispose()
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not any(token.encode() in kept for token in (wrong, *tokens)) and token_hash(tokens[1]).encode() in kept


class Wearer:
    """Client a of a toy fleet, with a key of its own, before the routes."""

    def __init__(self, folder: Path) -> None:
        self.engine = toy_engine(folder)
        enlist(self.engine, *"bc")
        self.registry, self.key = self.engine.registry, ec.generate_private_key(ec.SECP384R1())
        self.registry.add_client("a", public_pem(self.key), None)
        self.fleet = Fleet(self.registry, ServerPaths(folder), "127.0.0.1:1")
        self._folder = folder

    def ask(self, method: str, way: str, experiments: Experiments | None = None) -> tuple[int, dict[str, object]]:
        served, used = experiments or Experiments([self.fleet]), self._folder / "used"
        routes = device_routes(served, self._folder, used, lambda refusal: None, enrolment=True, forgetting="keep")
        path = f"/v1/device/{way}"
        answer = TestClient(routes).request(method, path, headers=sign(self.key, method, path))
        return answer.status_code, answer.json()

    def said(self) -> list[str]:
        return [event.kind for event in self.registry.events(100) if event.client_id == "a"]


@pytest.fixture
def wearer(tmp_path: Path) -> Iterator[Wearer]:
    made = Wearer(tmp_path)
    yield made
    made.registry.engine.dispose()


@pytest.mark.parametrize("answered", [True, False])
def test_who_withdraws_while_a_round_is_open_is_not_in_it(wearer: Wearer, answered: bool) -> None:
    engine = wearer.engine
    current = engine.open(("a", "b", "c"))
    for client in "abc" if answered else "bc":
        assert isinstance(engine.receive(current, honest_reply(current.expectation, client)), Accepted)
    assert wearer.ask("POST", "withdraw") == (200, {"client_id": "a", "state": "withdrawn"})
    if not answered:
        late = engine.receive(current, honest_reply(current.expectation, "a"))
        assert late == Rejected("the round is over, or its client has left the fleet")
    assert len(list(engine.spool.rglob("*.safetensors"))) == 2
    assert engine.finish(current) is not None
    assert wearer.registry.outlook("a").descendants == () and wearer.registry.to_unlearn() == {}


def test_who_withdraws_when_it_was_summed_is_in_the_trail_and_so_are_the_models_that_it_went_into(
    wearer: Wearer,
) -> None:
    current = wearer.engine.open(("a", "b"))
    for client in "ab":
        wearer.engine.receive(current, honest_reply(current.expectation, client))
    wearer.engine.finish(current)
    play(wearer, "bc")  # whose model was made from that one
    assert wearer.registry.to_unlearn() == {}
    assert wearer.ask("POST", "withdraw")[0] == 200
    event = wearer.registry.events(1)[0]
    assert (event.kind, event.detail) == ("client withdrawn", "2 models descend from its updates")
    assert [model.version for model in wearer.registry.outlook("a").descendants] == [2, 3]
    assert wearer.registry.to_unlearn() == {"a": (2, 3)}, "until the operator has decided, or its wearer asks for it"
    lines = status_lines(experiment_status(wearer.fleet, ServerSettings()))
    assert any(line.startswith("unlearn  a has withdrawn, and 2 models, the newest version 3") for line in lines)
    assert wearer.ask("POST", "forget")[0] == 200 and wearer.registry.to_unlearn() == {}


def play(wearer: Wearer, clients: str) -> None:
    current = wearer.engine.open(tuple(clients))
    for client in clients:
        wearer.engine.receive(current, honest_reply(current.expectation, client))
    assert wearer.engine.finish(current) is not None


def test_leaving_may_be_repeated_and_who_withdrew_may_be_forgotten(wearer: Wearer) -> None:
    first = wearer.ask("POST", "withdraw")
    assert wearer.ask("POST", "withdraw") == first and wearer.said().count("client withdrawn") == 1
    assert wearer.ask("GET", "model")[0] == 403
    status, receipt = wearer.ask("POST", "forget")
    assert (status, receipt["client_id"], receipt["choice"]) == (200, "a", None)
    assert wearer.ask("POST", "forget") == (200, receipt), "whoever did not hear it hears the same"
    assert wearer.said() == [] and wearer.ask("POST", "withdraw") == (403, {"error": "this key is not enrolled"})


def test_a_receipt_is_told_again_for_a_while_to_who_holds_the_key_alone(
    wearer: Wearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = wearer.ask("POST", "forget")
    key, wearer.key = wearer.key, ec.generate_private_key(ec.SECP384R1())
    assert wearer.ask("POST", "forget") == (403, {"error": "this key is not enrolled"})
    wearer.key = key
    assert wearer.ask("POST", "forget") == receipt
    [kept] = wearer.fleet.paths.answered.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and public_pem(key).encode() not in kept.read_bytes()
    monkeypatch.setattr("server.forgetting.ANSWERED_DAYS", -1)
    assert wearer.ask("POST", "forget") == (403, {"error": "this key is not enrolled"})
    assert list(wearer.fleet.paths.answered.iterdir()) == []


def test_who_was_forgotten_on_the_operators_word_hears_the_receipt_when_it_asks(wearer: Wearer) -> None:
    receipt = wearer.fleet.forget("a").plain()
    assert wearer.ask("POST", "forget") == (200, receipt)


def test_a_revoked_wearable_is_told_so_in_one_line(wearer: Wearer) -> None:
    wearer.registry.revoke("a")
    status, said = wearer.ask("GET", "model")
    assert status == 403 and "the operator has ended this wearable's part" in str(said["error"])


@pytest.mark.parametrize("way", ["withdraw", "forget"])
def test_a_revoked_key_asks_for_nothing(wearer: Wearer, way: str) -> None:
    wearer.registry.revoke("a")
    assert wearer.ask("POST", way)[0] == 403
    assert wearer.registry.client("a").state == "revoked"


@pytest.mark.parametrize("way", ["withdraw", "forget"])
def test_who_leaves_an_experiment_that_is_paused_is_to_ask_again(wearer: Wearer, way: str) -> None:
    other = Fleet(Registry(wearer.registry.engine, "other"), ServerPaths(Path("none")), "127.0.0.1:1")
    assert wearer.ask("POST", way, Experiments([other]))[0] == 503
    assert wearer.registry.client("a").state == "enrolled"


@pytest.mark.parametrize(("lost", "status"), [(True, 410), (False, 403)])
def test_a_wearable_that_was_reported_lost_is_told_so_and_may_not_ask_to_be_let_go(
    wearer: Wearer, lost: bool, status: int
) -> None:
    wearer.registry.revoke("a", lost=lost)
    assert wearer.said()[0] == ("client lost" if lost else "client revoked")
    assert wearer.ask("GET", "model")[0] == status
    for way in ("withdraw", "forget"):
        assert wearer.ask("POST", way) == (403, {"error": "this key is not enrolled"})
    assert wearer.registry.client("a").state == ("lost" if lost else "revoked")
    stranger = ec.generate_private_key(ec.SECP384R1())
    wearer.key = stranger
    assert wearer.ask("GET", "model")[0] == 403


def test_a_lost_wearable_is_told_so_also_when_another_has_its_id(wearer: Wearer) -> None:
    lost, found = wearer.key, ec.generate_private_key(ec.SECP384R1())
    wearer.registry.revoke("a", lost=True)
    wearer.registry.invite("a", "hash", utc_now() + datetime.timedelta(hours=1))
    assert wearer.ask("GET", "model")[0] == 410
    wearer.registry.enrol("hash", public_pem(found), None)
    assert wearer.ask("GET", "model")[0] == 410
    wearer.key = found
    assert wearer.ask("GET", "model")[0] == 200
    wearer.fleet.forget("a")
    wearer.key = lost
    assert wearer.ask("GET", "model")[0] == 410
    for way in ("withdraw", "forget"):
        assert wearer.ask("POST", way)[0] == 403
