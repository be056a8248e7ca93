"""What the page answers: to whom, from where, once, and in whose language."""

from __future__ import annotations

import datetime
import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from page_phone import NAME, a_phone, pair, post, set_up
from PIL import Image
from standing_wearable import PASSPHRASE, RECOVERY, StandingWearable, now

from client.comparison import Comparison
from client.gates import RECORDING
from client.page.pairing import Pairing
from client.page.settings import PageSettings
from client.page.wearable_protocol import Change, LastLesson, Learning, Live, ModelChoice
from client.said import Said
from mcoe_model.consent import Consent
from mcoe_model.errors import (
    DiskFull,
    LabelFirst,
    SettingsError,
)

DAILY = ("/", "/history", "/live", "/privacy", "/questions", "/fit", "/try", "/ready", "/consent", "/consent/copy")


@pytest.fixture
def wearable() -> StandingWearable:
    return StandingWearable()


@pytest.fixture
def phone(tmp_path: Path, wearable: StandingWearable) -> Iterator[TestClient]:
    """One that is not paired yet."""
    with a_phone(tmp_path, wearable) as client:
        yield client


@pytest.fixture
def paired(phone: TestClient, tmp_path: Path) -> TestClient:
    return pair(phone, tmp_path)


@pytest.fixture
def opened(paired: TestClient) -> TestClient:
    """A wearable that is set up, with every consent."""
    return set_up(paired)


def test_nothing_is_shown_to_a_phone_that_is_not_paired(phone: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    for path in (*DAILY, "/label/s0", "/api/replay/s0?from_us=0&to_us=1", "/api/preview", "/events", "/export.zip"):
        assert phone.get(path).status_code == 401, path
        answer = phone.get(path, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/pair")
    for path in ("/api/record/start", "/api/markers", "/api/set-up", "/api/forget", "/api/join"):
        assert post(phone, path).status_code == 401, path
    assert wearable.calls == []
    assert phone.get("/health").json() == {"status": "ok"}
    assert "Pairing code" in phone.get("/pair").text


def test_a_code_becomes_a_cookie_that_no_script_and_no_other_page_gets(phone: TestClient, tmp_path: Path) -> None:
    assert post(phone, "/api/pair", {"code": "2222-2222"}).json()["said"].startswith("No code waits")
    code = Pairing(tmp_path).code()
    refused = post(phone, "/api/pair", {"code": "2222-2222"})
    assert (refused.status_code, refused.json()["said"]) == (403, "This is not the code. Tries left: 4")
    key = "a" * 32
    answer = post(phone, "/api/pair", {"code": code}, key)
    kept = answer.headers["set-cookie"]
    assert kept.startswith("__Host-mcoe=")
    assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= set(kept.split("; "))
    assert phone.get("/").headers["location"] == "/welcome"
    assert post(phone, "/api/pair", {"code": code}, key).headers["set-cookie"] == kept, "its answer was lost on the way"
    assert post(phone, "/api/pair", {"code": code}).status_code == 403


def test_a_forms_key_without_the_code_pairs_nobody(phone: TestClient, tmp_path: Path) -> None:
    code, key = Pairing(tmp_path).code(), "0000000000000001"
    assert post(phone, "/api/pair", {"code": code}, key).status_code == 200
    phone.cookies.clear()
    answer = post(phone, "/api/pair", {"code": "2222-2222"}, key)
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "mcoe-wxyz.local", "192.0.2.7", "mcoe-abcd.local.evil.example", ""])
def test_a_name_that_is_not_the_wearables_is_refused(opened: TestClient, host: str) -> None:
    assert opened.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"http://{NAME}"},
                                     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])  # fmt: skip
def test_another_web_page_can_do_nothing(
    opened: TestClient, wearable: StandingWearable, headers: dict[str, str]
) -> None:
    assert post(opened, "/api/record/start", **headers).status_code == 403
    assert opened.get("/api/preview", headers=headers).status_code == 403
    assert "start" not in wearable.calls
    own = {"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"}
    assert post(opened, "/api/record/start", **own).status_code == 200


def test_more_than_a_form_holds_is_not_read(phone: TestClient) -> None:
    assert post(phone, "/api/pair", {"code": "2" * 70_000}).status_code == 413
    endless = phone.post("/api/pair", content=iter([b"{"]), headers={"Idempotency-Key": "d" * 32})
    assert endless.status_code == 413


def test_every_answer_keeps_others_out(opened: TestClient, phone: TestClient) -> None:
    for path in (*DAILY, "/static/page.css", "/nowhere"):
        headers = opened.get(path).headers
        assert headers["cache-control"] == "no-store", path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy, path
        assert "frame-ancestors 'none'" in policy, path


def test_pages_name_no_other_host_and_hold_no_inline_code(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    for path in (*DAILY, "/label/s0"):
        text = opened.get(path).text
        assert "http:" not in text and "https:" not in text, path
        assert " style=" not in text and " onclick" not in text, path


def test_without_tls_the_page_is_for_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="loopback only"):
        PageSettings(tmp_path, host="0.0.0.0", tls=False)
    assert PageSettings(tmp_path, host="127.0.0.1", tls=False).tls is False


def test_nothing_is_stored_before_consent(paired: TestClient, wearable: StandingWearable) -> None:
    for path in ("/", "/history", "/live", "/privacy", "/fit"):
        assert paired.get(path).headers["location"] == "/welcome"
    for path in ("/welcome", "/consent", "/consent/copy", "/secure"):
        assert paired.get(path).status_code == 200
    assert wearable.calls == []
    old = post(paired, "/api/set-up", {"kinds": ["capture"], "version": "demo-0", "passphrase": PASSPHRASE})
    assert old.status_code == 409
    unknown = post(paired, "/api/set-up", {"kinds": ["everything"], "version": "demo-3", "passphrase": None})
    assert unknown.status_code == 409
    short = post(paired, "/api/set-up", {"kinds": [], "version": "demo-3", "passphrase": "short"})
    assert short.status_code == 422
    assert wearable.calls == []


def test_a_form_that_arrives_twice_is_done_once(opened: TestClient, wearable: StandingWearable) -> None:
    key = "b" * 32
    answers = [post(opened, "/api/record/save-last", key=key).json() for _ in range(3)]
    assert answers == [{"session": "s0"}] * 3
    assert wearable.calls.count("save_last") == 1
    assert post(opened, "/api/record/save-last").json() == {"session": "s1"}
    assert opened.post("/api/record/save-last", json={}).status_code == 422, "a form needs a key"
    assert post(opened, "/api/label", {"span": 1, "label": "bored", "intensity": None}).status_code == 422
    assert post(opened, "/api/label", {"span": 1, "label": "fear", "intensity": None, "more": 1}).status_code == 422


def test_forms_keep_their_key_beyond_this_process(
    opened: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    wearable.add("s1", 12)
    seen: list[str] = []
    for name in ("label", "trim", "undo", "add_span"):
        does = getattr(wearable, name)

        async def done(*form: object, does=does) -> object:  # type: ignore[no-untyped-def]
            seen.append(form[-1])  # type: ignore[arg-type]
            return await does(*form)

        monkeypatch.setattr(wearable, name, done)
    bounds = {"start_us": 0, "end_us": 1_000_000}
    post(opened, "/api/label", {"span": 1, "label": "fear", "intensity": None}, "k" * 16)
    post(opened, "/api/label/trim", {"span": 1} | bounds, "l" * 16)
    post(opened, "/api/label/undo", {"span": 1}, "m" * 16)
    post(opened, "/api/spans", {"session": "s1"} | bounds, "n" * 16)
    assert seen == [f"label {'k' * 16}", f"trim {'l' * 16}", f"undo {'m' * 16}", f"add-span {'n' * 16}"]


def test_what_was_refused_while_locked_is_done_later_with_the_same_key(
    opened: TestClient, wearable: StandingWearable
) -> None:
    wearable.add("s1", 12)
    wearable.change(stage="locked")
    form, key = {"span": 1, "label": "fear", "intensity": None}, "k" * 16
    refused = post(opened, "/api/label", form, key)
    assert (refused.status_code, refused.json()["fault"], refused.json()["passes"]) == (409, "Locked", True)
    wearable.change(stage="open")
    assert post(opened, "/api/label", form, key).json()["label"] == "fear"
    gone = post(opened, "/api/sessions/discard", {"session": "s7"})
    assert (gone.status_code, gone.json()["passes"]) == (404, False)


def test_the_models_guess_is_told_after_the_wearer_chose(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    before = opened.get("/label/s0").text
    guessed = wearable.sessions["s0"].spans
    wearable.sessions["s0"] = replace(wearable.sessions["s0"], spans=(replace(guessed[0], predicted=None),))
    assert opened.get("/label/s0").text == before, "whoever looks for the guess in the page does not find it"
    wearable.sessions["s0"] = replace(wearable.sessions["s0"], spans=guessed)
    answer = post(opened, "/api/label", {"span": 1, "label": "happiness", "intensity": 4}).json()
    assert (answer["label"], answer["intensity"], answer["predicted"]) == ("happiness", 4, "sadness")
    assert "Happiness · strength 4" in opened.get("/history").text
    undone = post(opened, "/api/label/undo", {"span": 1}).json()
    assert (undone["label"], undone["predicted"]) == (None, None)
    assert post(opened, "/api/label/trim", {"span": 1, "start_us": 0, "end_us": 100}).status_code == 409
    trimmed = post(opened, "/api/label/trim", {"span": 1, "start_us": 10**6, "end_us": 3 * 10**6}).json()
    assert (trimmed["start_us"], trimmed["end_us"]) == (10**6, 3 * 10**6)


def test_a_part_is_discarded_once_and_the_recording_stays(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    assert 'id="discard-part"' in opened.get("/label/s0").text
    for _ in range(2):  # the second is the same form, delivered again
        assert post(opened, "/api/spans/discard", {"span": 1}, "d" * 16).status_code == 200
    assert wearable.calls.count("discard_span") == 1
    left = opened.get("/label/s0", headers={"Accept-Language": "de"}).text
    assert 'id="discard-part"' not in left and "Diese Aufnahme verwerfen" in left
    assert post(opened, "/api/spans/discard", {"span": 1}).json()["fault"] == "DataMissing"


def test_pictures_go_to_the_phone_and_nowhere_else(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    answer = opened.get("/api/replay/s0?from_us=1000000&to_us=2000000")
    assert (answer.headers["cache-control"], answer.headers["content-encoding"]) == ("no-store", "gzip")
    count, side = struct.unpack_from("<II", answer.content)
    assert (count, side, len(answer.content)) == (31, 90, 8 + 31 * (4 + 2 * 90 * 90))
    times = np.frombuffer(answer.content, "<f4", count, 8)
    assert times[0] == 0 and times[-1] == pytest.approx(1, abs=0.001)
    square = "x=53&y=10&side=240&rotation=0&eye=right"
    first = opened.get(f"/api/preview?{square}")
    with Image.open(io.BytesIO(first.content)) as picture:
        assert picture.size == (346, 520)
    assert first.headers["x-checks"] == ""
    beside = opened.get(f"/api/preview?{square.replace('side=240', 'side=90')}&after={first.headers['x-number']}")
    assert beside.headers["x-number"] != first.headers["x-number"]
    assert beside.headers["x-checks"] == "eye-outside"
    assert opened.get("/api/preview?x=300&y=10&side=240&rotation=0&eye=right").status_code == 409
    post(opened, "/api/withdraw", {"kind": "capture"})
    refused = opened.get(f"/api/preview?{square}")
    assert refused.json() == {
        "fault": "ConsentMissing",
        "said": "You have not agreed to this. You can do so under Privacy.",
        "quoted": "",
        "passes": False,
    }


def test_a_try_out_is_deleted(opened: TestClient) -> None:
    assert post(opened, "/api/try-out").json() == {"pairs": 301, "frames": 300, "events": 123_456}
    assert opened.get("/api/try-out/replay").status_code == 200
    post(opened, "/api/try-out/delete")
    assert opened.get("/api/try-out/replay").status_code == 404


def test_a_try_out_is_shown_to_nobody_once_sight_is_taken_back(opened: TestClient) -> None:
    post(opened, "/api/try-out")
    post(opened, "/api/withdraw", {"kind": "capture"})
    assert opened.get("/api/try-out/replay").status_code == 409


def test_markers_are_answered_with_the_cameras_time(opened: TestClient, wearable: StandingWearable) -> None:
    answer = post(opened, "/api/markers", {"text": "stimulus 3", "source": "psychopy"})
    assert answer.json()["device_us"] == 1_234_567
    assert datetime.datetime.fromisoformat(answer.json()["utc"]).tzinfo is not None
    assert wearable.calls[-1] == "marker stimulus 3 psychopy"
    assert post(opened, "/api/markers", {"text": ""}).status_code == 422


def test_a_changed_text_is_asked_again(opened: TestClient, wearable: StandingWearable) -> None:
    old = tuple(Consent(one.kind, "demo-0", one.given) for one in wearable.state.consents)
    wearable.change(consents=old)
    assert opened.get("/").headers["location"] == "/consent"
    text = opened.get("/consent").text
    assert "The text has changed" in text and " checked" not in text
    post(opened, "/api/consents", {"kinds": ["capture"], "version": "demo-3"})
    assert [(one.kind, one.version) for one in wearable.state.consents] == [("capture", "demo-3")]
    assert opened.get("/").status_code == 200


def test_every_consent_that_is_taken_back_ends_though_the_first_cannot_be_written_down(
    opened: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def full(kind: str) -> None:
        asked.append(kind)
        raise DiskFull("no space left")

    monkeypatch.setattr(wearable, "withdraw", full)
    given = {one.kind for one in wearable.state.consents}
    assert "DiskFull" in post(opened, "/api/consents", {"kinds": [], "version": "demo-3"}).text
    assert set(asked) == given and len(given) > 1


def test_a_copy_of_the_consent_says_what_was_agreed_to(opened: TestClient) -> None:
    post(opened, "/api/withdraw", {"kind": "export"})
    copy = opened.get("/consent/copy")
    assert copy.headers["content-disposition"] == 'attachment; filename="consent-demo-3-en.txt"'
    assert "Recording: yes, " in copy.text and "Recordings for researchers: no" in copy.text
    assert "SHA-256" in copy.text and "What cannot be undone" in copy.text


def test_a_locked_wearable_opens_by_its_words_alone(opened: TestClient) -> None:
    post(opened, "/api/lock")
    for path in ("/", "/history", "/label/s0", "/privacy", "/consent", "/export.zip"):
        assert opened.get(path).headers["location"] == "/unlock", path
    assert post(opened, "/api/unlock", {"words": "guess"}).status_code == 409
    assert post(opened, "/api/unlock", {"words": RECOVERY}).status_code == 200
    assert opened.get("/").status_code == 200


def test_everything_is_downloaded_or_refused_in_words(opened: TestClient) -> None:
    answer = opened.get("/export.zip")
    assert (answer.content, answer.headers["content-type"]) == (b"PKrest", "application/zip")
    assert answer.headers["content-disposition"].startswith('attachment; filename="w-7k3m-')
    post(opened, "/api/withdraw", {"kind": "capture"})  # the stand-in's reason to refuse
    refused = opened.get("/export.zip")
    assert refused.status_code == 409 and "You have not agreed to this" in refused.text


def test_without_a_passphrase_nothing_is_locked(paired: TestClient, wearable: StandingWearable) -> None:
    assert post(paired, "/api/set-up", {"kinds": [], "version": "demo-3", "passphrase": None}).json() == {
        "recovery": None
    }
    assert post(paired, "/api/lock").json()["said"] == "Without a passphrase there is nothing to lock."
    assert wearable.state.stage == "open"


def test_forgetting_needs_the_wearers_code_and_unpairs(opened: TestClient, wearable: StandingWearable) -> None:
    refused = post(opened, "/api/forget", {"wearer": "somebody"})
    assert refused.json()["said"] == "This cannot be done. The code does not fit. Nothing was deleted."
    assert "forget" not in wearable.calls
    assert post(opened, "/api/forget", {"wearer": " W-7K3M "}).status_code == 200
    assert wearable.calls[-1] == "forget"
    assert opened.get("/welcome").status_code == 401


def test_the_page_speaks_the_phones_language(opened: TestClient, wearable: StandingWearable) -> None:
    german = {"Accept-Language": "de-AT,de;q=0.9"}
    assert '<html lang="de">' in opened.get("/", headers=german).text
    assert "Aufnahme starten" in opened.get("/", headers=german).text
    assert post(opened, "/api/unlock", {"words": ""}, **german).json()["said"].startswith("Das Gerät ist gesperrt")
    assert opened.post("/api/language", json={"language": "de"}).status_code == 200
    assert "Aufnahme starten" in opened.get("/").text
    assert opened.post("/api/language", json={"language": "../x"}).status_code == 422


def test_what_cannot_be_replayed_any_more_can_still_be_named(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15, raw_deleted=True, raw_until=None)
    text = opened.get("/label/s0").text
    assert "The label can still be changed" in text and "canvas" not in text
    assert opened.get("/api/replay/s0?from_us=0&to_us=1000000").status_code == 404
    assert opened.get("/label/nope").status_code == 404


def test_the_wearer_can_go_back_when_there_is_something_to_go_back_to(
    opened: TestClient, wearable: StandingWearable
) -> None:
    keep, take = '<button type="button" id="keep-model">', '<button type="button" id="take-model">'
    for newer, before, worse, shown in (
        (None, None, False, []),
        ("9c" * 6, None, True, [take, "it is worse"]),
        ("9c" * 6, None, False, [take, "You chose to keep yours"]),
        (None, "3f" * 6, False, [keep, "which is kept: <code>3f3f3f3f</code>"]),
    ):
        wearable.change(model=ModelChoice("ab" * 6, newer, before, worse, Comparison(24, 3, 19, 18, 2, 1).in_words()))
        text = opened.get("/live").text
        assert "19 of your 24" in text and all(one in text for one in shown)
        assert [one in text for one in (keep, take)] == [one in shown for one in (keep, take)]


def test_what_it_learned_is_shown(opened: TestClient, wearable: StandingWearable) -> None:
    assert "Nothing yet" in opened.get("/live").text
    last = LastLesson(now(), 12, "learned", 20, 9, 14)
    wearable.change(learning=Learning("nothing", 0, (), last))
    text = opened.get("/live").text
    assert "learned last: 12" in text and "it recognises 14, before 9" in text and "Nothing yet" not in text
    wearable.change(learning=Learning("paused", 3, (RECORDING,), last))
    text = opened.get("/live").text
    assert "stands still" in text and "Waits until the recording has ended" in text and "it recognises 14" in text
    assert "their pictures are gone" not in text
    wearable.change(learning=Learning("nothing", 0, (), last, lost=7))
    assert "their pictures are gone: 7" in opened.get("/live").text
    wearable.change(learning=Learning("nothing", 0, (), last, contradicted=2, flawed=3))
    text = opened.get("/live").text
    assert "says something else: 2" in text and "has a fault: 3" in text and "pictures are gone" not in text


@pytest.mark.parametrize(
    ("language", "says", "nothing"), [("en", "to compare models", "Nothing yet"), ("de", "Vergleichen", "Noch nichts")]
)
def test_a_part_that_is_kept_to_compare_models_is_not_called_nothing(
    opened: TestClient, wearable: StandingWearable, language: str, says: str, nothing: str
) -> None:
    opened.cookies.set("language", language)
    text = opened.get("/live").text
    assert nothing in text and says not in text
    wearable.change(learning=Learning(held_out=1))
    text = opened.get("/live").text
    assert nothing not in text and says in text
    tried = LastLesson(now(), 12, "learned", 1, 0, 1)
    wearable.change(learning=Learning(last=tried, held_out=1))
    assert says not in opened.get("/live").text, "that it was tried on them says so"


def test_what_would_have_to_go_is_named_on_the_first_screen(
    opened: TestClient, wearable: StandingWearable, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Said("room.label", "full; label or delete {names}", quota=20.0, names="3f9c (2026-11-21, 2 MB)")
    wearable.change(refusal="label-first", no_room=full)
    assert "Label or delete first: 3f9c" in opened.get("/").text

    async def refuse() -> str:
        raise LabelFirst(full)

    monkeypatch.setattr(wearable, "start_recording", refuse)
    assert "Label or delete first: 3f9c" in post(opened, "/api/record/start").json()["said"]


def test_every_text_finds_its_place(opened: TestClient, wearable: StandingWearable) -> None:
    """Each screen renders with everything that it can show."""
    wearable.add("s0", 45, state="partial")
    wearable.add("s1", 15)
    post(opened, "/api/label", {"span": 2, "label": "skip", "intensity": None})
    wearable.ask("s0")
    wearable.recognise()
    wearable.change(clock_set=False, camera=None, refusal="label-first")
    assert "Questions that wait" in opened.get("/").text and "Camera not seen" in opened.get("/").text
    assert "Happiness" in opened.get("/live").text and "3f3f3f3f" in opened.get("/live").text
    assert "Later" in opened.get("/questions").text
    assert "Ended early" in opened.get("/history").text and "Skip" in opened.get("/history").text
    post(opened, "/api/questions/snooze", {"prompt": 1})
    assert wearable.state.prompts == 0


def test_what_another_label_can_still_change_is_said(opened: TestClient, wearable: StandingWearable) -> None:
    said: dict[Change, str] = {
        "everything": "has not learned from this yet: a new label takes the old one&#39;s place",
        "next learning": "has learned from this already. A new label is kept and used the next time",
        "history": "a new label is kept in the history, and nothing is learned from it any more",
    }
    wearable.add("s0", 15)
    post(opened, "/api/label", {"span": 1, "label": "fear", "intensity": None})
    [span] = wearable.sessions["s0"].spans
    for change in said:
        wearable.sessions["s0"] = replace(wearable.sessions["s0"], spans=(replace(span, change=change),))
        text = opened.get("/label/s0").text
        assert [one for one, words in said.items() if words in text] == [change]


def test_a_recording_is_kept_for_longer_or_discarded(opened: TestClient, wearable: StandingWearable) -> None:
    wearable.add("s0", 15)
    until, before = wearable.sessions["s0"].raw_until, opened.get("/history").text
    assert until is not None
    assert post(opened, "/api/sessions/keep", {"session": "s0"}).status_code == 200
    assert wearable.sessions["s0"].raw_until == until + datetime.timedelta(days=14)
    assert opened.get("/history").text != before, "the date is shown"
    assert post(opened, "/api/sessions/discard", {"session": "s0"}).status_code == 200
    assert not wearable.sessions and "/label/s0" not in opened.get("/history").text


def test_the_live_screen_tells_expression_confidence_delay_and_what_was_skipped(
    opened: TestClient, wearable: StandingWearable
) -> None:
    wearable.change(live=Live("fear", (0.02, 0.03, 0.81, 0.04, 0.05, 0.03, 0.02), 23.4, 29.6, 17))
    text = opened.get("/live").text
    assert "<strong>Fear</strong>" in text and "81 % sure" in text
    shown = [f"<dt>{name}</dt><dd>{value}</dd>" for name, value in
             (("Delay", "23 ms"), ("Per second", "30"), ("Skipped", "17"))]  # fmt: skip
    assert all(one in text for one in shown)
