"""A wearable of the program before, and of one to come, before today's server: every kind of message that there is."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import program_0_1_0 as before
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient
from toy_fleet import enlist, honest_reply, toy_engine

from mcoe_model.consent import read_consents
from mcoe_model.health import Health
from mcoe_model.invitation import Invitation
from mcoe_model.learning.settings import BatchNorm, Schedule
from mcoe_model.model_file import PROTOCOL_VERSION
from mcoe_model.protocol import (
    CheckIn,
    EvaluateReport,
    EvaluateTask,
    News,
    Offer,
    OtherProtocol,
    ProtocolError,
    Standing,
)
from mcoe_model.signed_request import Verifier, public_pem, sign
from mcoe_model.tensors import pack, unpack
from mcoe_model.update import TRAIN_MODES
from server.app import Coordinator, Policy
from server.certificates import make_authority
from server.check_ins import CheckIns
from server.device_routes import device_routes
from server.experiments import Experiments
from server.fleet import Fleet
from server.lifecycle import ReleasePolicy
from server.paths import ServerPaths
from server.presence import Presence
from server.registry import PUBLISHED
from server.registry.models import CANDIDATE
from server.trials import Trials
from simulations.local_grid import FIRST_NODE_ID, LOCAL_POLL, LocalGrid


class AtOnce:
    """A pool of no workers: what is to be done is done before it is asked for."""

    def submit(self, do: Callable[..., None], letter: Path, *rest: Any) -> Future[None]:
        made, path = letter.__reduce__()  # as on its way to a worker
        done: Future[None] = Future()
        done.set_result(do(made(*path), *rest))  # type: ignore[operator]
        return done


def test_a_wearable_of_the_program_before_takes_part_in_a_round(tmp_path: Path) -> None:
    engine, health = toy_engine(tmp_path), dict[str, Health]()
    before.heard.clear()
    with closing(LocalGrid("program_0_1_0:app", [{}], {}, AtOnce())) as grid:  # type: ignore[arg-type]
        presence = Presence(
            grid, engine.registry.saw, lambda node: {FIRST_NODE_ID: before.CLIENT}[node],
            offer=lambda client: Offer("c" * 64, canary=True), check_ins=CheckIns("0.1.0", "0.2.0", 3600.0),
            note_health=health.__setitem__,
        )  # fmt: skip
        Coordinator(presence, engine, Policy(2, poll_s=LOCAL_POLL), 0, lambda event: None).run()
    rows = engine.registry.rounds()
    assert [row.state for row in rows] == [PUBLISHED] * 2, engine.registry.replies(rows[-1].id)
    assert {"query", "news", "offer", "train"} == set(before.heard) and before.heard.count("train") == 2
    assert engine.registry.client(before.CLIENT).standing == "update-advised"
    assert health[before.CLIENT] == Health(**before.HEALTH)  # type: ignore[arg-type]


def test_a_wearable_of_the_program_before_compares_a_model_with_its_parent(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    registry, engine.new_state = engine.registry, CANDIDATE
    enlist(engine, "b")
    current = engine.open(("b",))
    engine.receive(current, honest_reply(current.expectation, "b"))
    engine.finish(current)
    before.heard.clear()
    with closing(LocalGrid("program_0_1_0:app", [{}], {}, AtOnce())) as grid:  # type: ignore[arg-type]
        presence = Presence(grid, registry.saw, lambda node: before.CLIENT, offer=registry.offer, again_s=0.0)
        trials = Trials(presence, registry, engine.artifacts, ReleasePolicy(evaluation_clients=3), "head")
        for _ in range(10):
            presence.refresh()
            trials.step()
    trial = registry.trial()
    assert trial is not None and "evaluate" in before.heard
    [said] = trial.reports
    assert (said.client_id, said.examples, said.correct, said.parent_correct) == (before.CLIENT, 12, 9, 8)
    registry.engine.dispose()


def test_what_the_program_before_sends_is_read() -> None:
    said = CheckIn.from_record(before.CHECK_IN)
    assert {name: list(value) if type(value) is tuple else value for name, value in vars(said).items()} == (
        before.CHECK_IN
    )
    assert vars(EvaluateReport.from_record(before.EVALUATE_REPORT)) == before.EVALUATE_REPORT
    assert vars(Health.from_record(before.HEALTH)) == before.HEALTH
    assert [consent.to_plain() for consent in read_consents(before.CONSENTS)] == before.CONSENTS
    assert unpack(before.PACKED)["a"].tolist() == [1.0, 2.0]
    now = datetime.datetime.fromisoformat(before.SIGNED_AT)
    signer = Verifier().verify(before.SIGNED, "POST", "/v1/device/withdraw", b"", now)
    assert signer.startswith("-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("standing", get_args(Standing))
def test_the_program_before_reads_what_it_is_told(standing: Standing) -> None:
    news = News(("0" * 32,), ("1" * 32,), standing, 3600.5)
    assert before.read("news", news.to_record())["standing"] == standing
    for canary in (False, True):
        assert before.read("offer", Offer("a" * 64, canary).to_record())["canary"] is canary
    for mode in TRAIN_MODES:
        before.read("evaluate task", EvaluateTask("a" * 64, "b" * 64, "c" * 64, "d" * 16, mode).to_record())
    assert before.WORDS["fine_tune.schedule"] == {*get_args(Schedule)}
    assert before.WORDS["fine_tune.batch_norm"] == {*get_args(BatchNorm)}
    assert pack({"a": np.array([1, 2], np.float32)}) == before.PACKED
    made = Invitation.from_line(before.INVITATION)
    assert made.to_line() == before.INVITATION and made.client_id == before.CLIENT


class Asker:
    """A wearable of the program before at the routes beside Flower."""

    def __init__(self, folder: Path) -> None:
        self.engine = toy_engine(folder)
        self.fleet = Fleet(self.engine.registry, ServerPaths(folder), "127.0.0.1:1")
        self.fleet.register_members = lambda: 0  # type: ignore[method-assign]  # nobody has to tell Flower
        self.key = ec.generate_private_key(ec.SECP384R1())
        make_authority(folder)
        self.authority = (folder / "ca.crt").read_text()
        routes = device_routes(
            Experiments([self.fleet]), folder, folder / "used", lambda refusal: None, enrolment=True, forgetting="keep"
        )
        self.client = TestClient(routes)

    def ask(self, method: str, way: str, body: bytes = b"", **headers: str) -> Any:
        path = f"/v1/device/{way}"
        signed = sign(self.key, method, path, body) | headers
        return self.client.request(method, path, content=body, headers=signed)


@pytest.fixture
def asker(tmp_path: Path) -> Any:
    made = Asker(tmp_path)
    yield made
    made.engine.registry.engine.dispose()


def test_the_routes_beside_flower_answer_as_the_program_before_expects(asker: Asker) -> None:
    invitation = asker.fleet.invite("127.0.0.1:8443", "f" * 64, before.CLIENT)
    body = {"token": invitation.token, "consents": before.CONSENTS}
    told = asker.ask("POST", "enrol", json.dumps(body).encode())
    assert (told.status_code, told.json()) == (200, {"client_id": before.CLIENT})
    authority = asker.client.get("/v1/device/authority")  # which it asks before it has a key to sign with
    assert authority.status_code == 200 and re.findall(before.CERTIFICATE, authority.text) == [asker.authority]
    newest = asker.ask("GET", "model").json()
    assert newest.keys() >= before.ANSWERS["model"]
    whole = asker.ask("GET", f"models/{newest['sha256']}")
    assert whole.status_code == 200 and hashlib.sha256(whole.content).hexdigest() == newest["sha256"]
    rest = asker.ask("GET", f"models/{newest['sha256']}", range="bytes=100-")
    assert rest.status_code == 206 and rest.content == whole.content[100:]
    nothing = asker.ask("GET", f"models/{newest['sha256']}", range=f"bytes={len(whole.content)}-")
    assert nothing.status_code == 416
    for way in ("withdraw", "forget"):
        answer = asker.ask("POST", way)
        assert answer.status_code == 200 and answer.json().keys() >= before.ANSWERS[way]
        assert answer.json()["client_id"] == before.CLIENT
    refused = asker.ask("GET", "model")
    assert refused.status_code in (401, 403) and refused.json().keys() == before.ANSWERS["refusal"]


def test_one_that_was_reported_lost_is_told_so_as_the_program_before_knows_it(asker: Asker) -> None:
    asker.fleet.enrol(asker.fleet.invite("127.0.0.1:8443", "f" * 64, "w1").token, public_pem(asker.key))
    asker.engine.registry.revoke("w1", lost=True)
    told = asker.ask("GET", "model")
    assert told.status_code == 410 and told.json().keys() == before.ANSWERS["refusal"]


def test_what_a_program_to_come_adds_is_let_be_where_it_may_be(asker: Asker) -> None:
    """Other protocols are known by their number, whatever else they say; other words and records are passed over."""
    with pytest.raises(OtherProtocol) as other:
        CheckIn.from_record({"protocol_version": PROTOCOL_VERSION + 1, "mood": b"?"})
    assert other.value.version == PROTOCOL_VERSION + 1
    said = CheckIn.from_record(before.CHECK_IN | {"capabilities": ["train-head", "sings"], "client_version": "9.9"})
    assert said.capabilities == ("train-head", "sings")
    with pytest.raises(ProtocolError):  # then the check-in counts without it
        Health.from_record(before.HEALTH | {"humour": 1})
    invitation = asker.fleet.invite("127.0.0.1:8443", "f" * 64, "w1")
    body = {"token": invitation.token, "consents": [], "camera": "of the next kind"}
    assert asker.ask("POST", "enrol", json.dumps(body).encode()).json() == {"client_id": "w1"}
