"""What a phone is shown of the fleet that the wearer belongs to, and how one joins it."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from page_phone import a_phone, pair, post, set_up
from standing_wearable import StandingWearable

from client.gates import RECORDING
from client.leaving import Goodbye
from client.page.wearable_protocol import CheckIns
from mcoe_model.errors import EnrolmentRefused, McoeError, OutputExists, ServerUnreachable
from mcoe_model.invitation import Invitation


@pytest.fixture
def wearable() -> StandingWearable:
    return StandingWearable()


@pytest.fixture
def opened(tmp_path: Path, wearable: StandingWearable) -> Iterator[TestClient]:
    """The phone of a wearer who has agreed to everything."""
    with a_phone(tmp_path, wearable) as client:
        yield set_up(pair(client, tmp_path))


def test_the_privacy_page_says_what_the_server_was_told(opened: TestClient, wearable: StandingWearable) -> None:
    assert 'id="left"' not in opened.get("/privacy").text
    asked = Goodbye("withdraw", "w-5x", "fleet:8443", "2026-11-20")
    wearable.change(left=asked)
    assert "Waiting for the server since 2026-11-20" in opened.get("/privacy").text
    wearable.change(left=replace(asked, answered="2026-11-21", receipt={"client_id": "w-5x", "state": "<withdrawn>"}))
    said = opened.get("/privacy", headers={"Accept-Language": "de"}).text
    assert "Der Server weiß seit 2026-11-21" in said and "w-5x" in said and "<withdrawn>" not in said
    assert "neu einladen" in said
    wearable.change(left=replace(asked, answered="2026-11-21", refused="this key is not enrolled"))
    assert "refused." in opened.get("/privacy").text
    assert '<q lang="en">this key is not enrolled</q>' in opened.get("/privacy").text


INVITATION = f"mcoe-invitation:fleet.example.org:8443/{'0a' * 32}/{'t' * 32}/w-5x"


def test_a_wearer_in_no_fleet_joins_one_with_the_line_that_was_pasted(
    opened: TestClient, wearable: StandingWearable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert '<form id="join">' in opened.get("/privacy").text and 'id="member"' not in opened.get("/privacy").text
    assert post(opened, "/api/join", {"line": f"  {INVITATION}\n"}, "k" * 32).json() == {}
    assert post(opened, "/api/join", {"line": INVITATION}, "k" * 32).json() == {}, "its answer was lost on the way"
    assert wearable.joined == Invitation.from_line(INVITATION) and wearable.calls.count("join") == 1
    assert '<form id="join">' not in opened.get("/privacy").text and 'id="member"' in opened.get("/privacy").text
    assert "t" * 32 not in caplog.text + opened.get("/privacy").text


def test_a_wearable_that_was_reported_lost_says_so_and_how_it_comes_back(
    opened: TestClient, wearable: StandingWearable
) -> None:
    assert 'id="lost"' not in opened.get("/privacy").text
    wearable.change(lost=True)
    said = opened.get("/privacy", headers={"Accept-Language": "de"}).text
    assert "verloren" in said and '<form id="join">' in said


@pytest.mark.parametrize(("language", "words"), [("en", "no longer takes"), ("de", "nicht mehr als Mitglied")])
def test_a_member_that_the_server_takes_no_longer_joins_anew(
    opened: TestClient, wearable: StandingWearable, language: str, words: str
) -> None:
    wearable.change(enrolled=True, check_ins=CheckIns(0, 0, turned_away="the operator has ended it"))
    said = opened.get("/privacy", headers={"Accept-Language": language}).text
    assert words in said and "the operator has ended it" in said
    assert '<form id="join">' in said and 'id="member"' not in said


def test_the_privacy_screen_says_what_waits_for_the_fleet_and_why(
    opened: TestClient, wearable: StandingWearable
) -> None:
    assert 'id="waits"' not in opened.get("/privacy").text
    wearable.change(enrolled=True, check_ins=CheckIns(2, 31, (RECORDING,)))
    said = opened.get("/privacy").text
    assert "2 results, 31 labelled parts" in said and "Waits until the recording has ended." in said
    german = opened.get("/privacy", headers={"Accept-Language": "de"}).text
    assert "Wartet, bis die Aufnahme beendet ist." in german and "recording has" not in german
    due = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)
    wearable.change(check_ins=CheckIns(0, 0, (), due))
    said = opened.get("/privacy").text
    assert "Waits until" not in said and "Shares again at" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "This is no invitation"), ("https://fleet.example.org", "This is no invitation"),
     (INVITATION.replace(":8443", ":port"), "This is no invitation"), (INVITATION + " x", "This is no invitation")],
)  # fmt: skip
def test_what_is_no_invitation_is_refused_in_words(
    opened: TestClient, wearable: StandingWearable, line: str, said: str
) -> None:
    answer = post(opened, "/api/join", {"line": line})
    assert answer.status_code == 409 and said in answer.json()["said"] and wearable.joined is None
    german = post(opened, "/api/join", {"line": line}, **{"Accept-Language": "de"})
    assert "Das ist keine Einladung" in german.json()["said"]


@pytest.mark.parametrize("kind", ["learning", "updates"])
def test_nobody_joins_without_having_agreed(opened: TestClient, wearable: StandingWearable, kind: str) -> None:
    post(opened, "/api/withdraw", {"kind": kind})
    answer = post(opened, "/api/join", {"line": INVITATION})
    assert (answer.status_code, answer.json()["fault"]) == (409, "ConsentMissing") and wearable.joined is None


@pytest.mark.parametrize(
    ("fault", "said", "gesagt"),
    [
        (EnrolmentRefused("this invitation has expired"), "did not take this wearable.", "nimmt dieses Gerät"),
        (ServerUnreachable("no answer from 10.0.0.5"), "server is not reached", "nicht erreichbar"),
        (OutputExists("it is a member"), "This wearable belongs to a fleet", "gehört zur Gruppe"),
    ],
)
def test_why_it_could_not_join_is_said_in_the_wearers_language(
    opened: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch, fault: McoeError, said: str,
    gesagt: str,
) -> None:  # fmt: skip
    async def refuse(invitation: Invitation) -> None:
        raise fault

    monkeypatch.setattr(wearable, "join", refuse)
    answers = [post(opened, "/api/join", {"line": INVITATION}, **{"Accept-Language": one}) for one in ("en", "de")]
    for answer, expected in zip(answers, (said, gesagt), strict=True):
        assert answer.status_code == 409 and expected in answer.json()["said"]
        assert len(answer.json()["said"].splitlines()) == 1
