"""Who reads German reads German: what models, cameras, disks and faults say; English is a quotation, and marked."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from said_calls import said_calls
from standing_wearable import StandingWearable

import mcoe_model.errors
from client.capture_link import NoAnswer
from client.comparison import Comparison
from client.consent_text import read_consent_text
from client.enrolment import ReportedLost
from client.leaving import Goodbye
from client.page.app import make_page
from client.page.live import _facts, _parts
from client.page.pairing import Pairing
from client.page.settings import PageSettings
from client.page.wearable_protocol import Camera, CheckIns, Learning, ModelChoice
from client.page.words import Words
from client.said import Said, reason
from mcoe_model.errors import DataInvalid, EnrolmentRefused, McoeError, RoundFailed, SettingsError

NAME = "mcoe-abcd.local"
GERMAN = {"Accept-Language": "de", "Accept": "text/html"}
ENGLISH = "the quick brown fox"
DE = Words("de")
#: Every sentence of the program's that the page can say, with values that each of its places gives.
SAID = [
    Said(key, ENGLISH, **{name: 2.5 if name in ("p", "quota", "seconds") else f"<{name}>" for name in names})
    for key, names in sorted(set(said_calls()), key=str)
]
#: Every kind of fault there is, with a sentence that is in English alone.
FAULTS = [
    kind([ENGLISH]) if kind is SettingsError else kind(ENGLISH)
    for kind in [*vars(mcoe_model.errors).values(), NoAnswer, ReportedLost]
    if isinstance(kind, type) and issubclass(kind, McoeError)
]


@pytest.fixture
def wearable() -> StandingWearable:
    return StandingWearable()


@pytest.fixture
def phone(tmp_path: Path, wearable: StandingWearable) -> Iterator[TestClient]:
    """A paired phone of who reads German, and a wearable with every consent."""
    asyncio.run(wearable.set_up(None, ["capture", "labels", "learning", "updates"], read_consent_text(None, "de")))
    app = make_page(wearable, PageSettings(tmp_path), NAME, asyncio.Event())
    with TestClient(app, f"https://{NAME}", raise_server_exceptions=False, headers=GERMAN) as client:
        post(client, "/api/pair", {"code": Pairing(tmp_path).code()})
        yield client


_keys = iter(range(10**6))


def post(phone: TestClient, path: str, form: object = None) -> httpx.Response:
    return phone.post(path, json=form or {}, headers={"Idempotency-Key": f"{next(_keys):032}"})


def strip_of(wearable: StandingWearable) -> str:
    return unescape(_parts(wearable.state, DE)["strip"])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Comparison(24, 3, 12, 18, 0, 6),
            "Das neue Modell erkennt 12 Ihrer 24 benannten Stellen, Ihres 18 (p = 0,031).",
        ),
        (
            Comparison(24, 3, 18, 18, 0, 0),
            "Das neue Modell erkennt 18 Ihrer 24 benannten Stellen, Ihres 18 (p = 1,000).",
        ),
        (
            Comparison(8, 1, 0, 0, 0, 0),
            "Noch kein Urteil. Benannte Stellen: 8 (nötig 20), Ausdrücke darin: 1 (nötig 2).",
        ),
    ],
)
def test_a_comparison_of_two_models(
    phone: TestClient, wearable: StandingWearable, found: Comparison, said: str
) -> None:
    wearable.change(model=ModelChoice("ab" * 6, "cd" * 6, None, True, found.in_words(), own_damaged=True))
    text = phone.get("/live").text
    assert said in text and "Das hier gelernte Modell war beschädigt." in text
    assert 'lang="en"' not in text and str(found.in_words()) not in text


def test_why_there_is_no_camera(phone: TestClient, wearable: StandingWearable) -> None:
    whys = [one for one in SAID if one.key.startswith("camera.")]
    for why in whys:
        wearable.change(camera=Camera("DAVIS346", False, True), refusal="no-camera", why_no_camera=why)
        text = unescape(phone.get("/").text)
        assert f"Von der Kamera kommt nichts. {DE.said(why)}" in text and DE.said(why) in strip_of(wearable)
        assert 'lang="en"' not in text and ENGLISH not in text, why.key
    assert len(whys) > 20


def test_without_a_reason_there_is_no_camera_either(phone: TestClient, wearable: StandingWearable) -> None:
    wearable.change(camera=None)
    assert "Keine Kamera zu sehen." in strip_of(wearable)
    wearable.change(why_no_camera=f"<b> {ENGLISH}")
    assert f'Von der Kamera kommt nichts. <q lang="en"><b> {ENGLISH}</q>' in strip_of(wearable)
    assert "<b>" not in phone.get("/").text


def test_what_there_is_no_room_for(phone: TestClient, wearable: StandingWearable) -> None:
    whys = [one for one in SAID if one.key.startswith("room.")]
    for why in whys:
        wearable.change(refusal="disk-full", no_room=why)
        text = unescape(phone.get("/").text)
        assert DE.said(why) in text and ENGLISH not in text and 'lang="en"' not in text, why.key
        assert _facts(wearable.state, DE)["no_room"] == DE.said(why)
    assert len(whys) > 4


def test_why_it_waits(phone: TestClient, wearable: StandingWearable) -> None:
    gates = tuple(one for one in SAID if one.key.startswith("gate."))
    wearable.change(enrolled=True, learning=Learning("paused", 3, gates), check_ins=CheckIns(1, 2, gates))
    for path in ("/live", "/privacy"):
        text = unescape(phone.get(path).text).replace(
            '<button type="button" class="language" data-language="en" lang="en"', ""
        )
        assert all(DE.said(one) in text for one in gates) and len(gates) == 7, path
        assert 'lang="en"' not in text and ENGLISH not in text


def test_a_fault_is_said_in_german_and_what_it_quotes_is_marked(
    phone: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*form: object) -> None:
        raise fault

    for act in ("start_recording", "session"):
        monkeypatch.setattr(wearable, act, refuse)
    for fault in FAULTS:
        kind = next(f"fault.{one.__name__}" for one in type(fault).__mro__ if DE.known(f"fault.{one.__name__}"))
        explained = isinstance(fault, DataInvalid | EnrolmentRefused) or kind == "fault.McoeError"
        answer = post(phone, "/api/record/start").json()
        assert (answer["said"], answer["quoted"]) == (DE(kind), ENGLISH if explained else ""), kind
        shown = phone.get("/label/s0").text
        assert DE(kind) in shown and (f'<q lang="en">{ENGLISH}</q>' in shown) == explained
        assert shown.count(ENGLISH) == explained
    assert len(FAULTS) > 20


def test_a_fault_that_can_be_said_in_german_quotes_nothing(
    phone: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*form: object) -> None:
        raise RoundFailed(said)

    monkeypatch.setattr(wearable, "start_recording", refuse)
    for said in SAID:
        answer = post(phone, "/api/record/start").json()
        assert (answer["said"], answer["quoted"]) == (f"{DE('fault.McoeError')} {DE.said(said)}", "")
    one = SettingsError([SAID[0]])
    assert isinstance(one.args[0], Said) and str(one) == ENGLISH


def test_a_sentence_is_the_same_after_its_way_through_a_pipe_and_in_a_copy() -> None:
    said = Said("camera.no_recording", "there is no recording {path}", path="/a {b}/c.aedat4")
    heard = Said.of_event(json.loads(json.dumps({"is": "lost"} | reason(DataInvalid(said)))))
    for one in (heard, copy.deepcopy(said)):
        assert isinstance(one, Said) and (str(one), one.key, one.values) == (str(said), said.key, said.values)
    assert str(heard) == "there is no recording /a {b}/c.aedat4"
    plain = Said.of_event({"is": "lost"} | reason(DataInvalid("no {key}")))
    assert plain == "no {key}" and not isinstance(plain, Said) and Said.of_event({"is": "found"}) == ""
    assert DE.said(plain) == DE.said(Said("no.such_key", ENGLISH)) == ""


def test_the_servers_words_are_quotations(phone: TestClient, wearable: StandingWearable) -> None:
    refused = Goodbye("withdraw", "w-5x", "fleet:8443", "2026-11-20", "2026-11-21", ENGLISH)
    wearable.change(left=refused, enrolled=True, check_ins=CheckIns(0, 0, turned_away=ENGLISH))
    text = phone.get("/privacy").text
    assert text.count(f'Der Server sagte: <q lang="en">{ENGLISH}</q>') == text.count(ENGLISH) == 2


def test_what_goes_wrong_on_the_way_to_a_screen(
    phone: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, code in (("/nowhere", 404), ("/label/s0?span=first", 422)):
        answer = phone.get(path)
        assert answer.status_code == code and "Diese Seite gibt es hier nicht." in answer.text

    async def fail() -> None:
        raise RuntimeError(ENGLISH)

    monkeypatch.setattr(wearable, "status", fail)
    failed = phone.get("/")
    assert failed.status_code == 500 and DE("common.failed") in failed.text and ENGLISH not in failed.text
    assert "default-src 'none'" in failed.headers["content-security-policy"]
    assert phone.post("/api/fit", json={}).status_code == 422
    monkeypatch.setattr(wearable, "keep_model", fail)
    assert post(phone, "/api/model/keep").json()["said"] == DE("common.failed")
    elsewhere = phone.get("/", headers={"Host": "evil.example"})
    assert elsewhere.text == f"400: {DE('common.no_address')}\n"
    assert phone.get("/api/nowhere").json() == {"detail": "Not Found"}, "what scripts and programs ask stays JSON"
