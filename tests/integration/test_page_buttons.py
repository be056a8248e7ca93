"""Buttons of the page that nothing else presses, in a real browser on a stand-in wearable, each with its effect."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from walked_page import Walk, a_daily_walk


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with a_daily_walk(tmp_path_factory.mktemp("page")) as walk:
        yield walk
        assert walk.phone.complaints() == []


@pytest.mark.parametrize(
    ("way", "leads_to"), [("#delete", "/ready"), ("#leave", "/ready"), ("#fit-again", "/fit?first=1")]
)
def test_what_was_tried_out_is_deleted_on_every_way_from_it(walk: Walk, way: str, leads_to: str) -> None:
    phone, wearable = walk.phone, walk.wearable
    phone.open("/try")
    phone.press("#begin")
    phone.until(lambda: phone.find("#seen").is_displayed())
    assert phone.text("#counts") == "300 pictures and 123,456 changes of brightness."
    assert wearable.tried is not None
    phone.press(way)
    phone.until_at(leads_to)
    assert wearable.tried is None


def test_a_recording_is_kept_fourteen_days_more(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("k1", 15)
    before = wearable.sessions["k1"].raw_until
    assert before is not None
    after = before + datetime.timedelta(days=14)
    shown = "[data-session=k1] .help time"
    phone.open("/history")
    assert phone.find(shown).get_attribute("datetime") == before.isoformat()
    phone.press("[data-session=k1] .keep")
    phone.until(lambda: phone.find(shown).get_attribute("datetime") == after.isoformat())
    assert wearable.sessions["k1"].raw_until == after


def test_a_recording_is_deleted_once_the_wearer_is_sure(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("d1", 15)
    wearable.add("d2", 15)
    phone.open("/history")
    phone.press("[data-session=d1] .discard")
    phone.press("#sure-no")
    phone.until(lambda: not phone.find("#sure").is_displayed())
    assert phone.count("[data-session=d1]") == 1 and "discard" not in wearable.calls
    phone.press("[data-session=d1] .discard")
    phone.press("#sure-yes")
    phone.until(lambda: phone.text("#said") == "Deleted.")
    assert phone.count("[data-session=d1]") == 0 and "d1" not in wearable.sessions

    phone.open("/label/d2")
    phone.press("#discard")
    phone.press("#sure-no")
    phone.until(lambda: not phone.find("#sure").is_displayed())
    assert phone.path == "/label/d2" and "d2" in wearable.sessions
    phone.press("#discard")
    phone.press("#sure-yes")
    phone.until_at("/history")
    assert phone.count("[data-session=d2]") == 0 and "d2" not in wearable.sessions
    assert wearable.calls.count("discard") == 2


def test_a_question_is_put_off(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    for session in ("q1", "q2"):
        wearable.add(session, 15)
        wearable.ask(session)
    first, second = wearable.questions
    phone.open("/questions")
    phone.press(f"[data-prompt='{first.id}']")
    phone.until(lambda: phone.text("#said") == "You will be asked again later.")
    assert phone.count(".snooze") == 1 and wearable.questions == [second]
    phone.press(f"[data-prompt='{second.id}']")
    phone.until(lambda: phone.text("main .idle") == "No question waits.")
    assert wearable.questions == []
    phone.open("/")
    assert not phone.find("#questions").is_displayed()


def test_a_part_is_trimmed_to_what_is_chosen(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("t1", 15)
    phone.open("/label/t1")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    phone.press("#trim summary")
    phone.find("#from").send_keys(*[Keys.ARROW_RIGHT] * 10)
    phone.find("#to").send_keys(*[Keys.ARROW_LEFT] * 20)
    phone.press("#do-trim")
    phone.until(lambda: phone.text("#said") == "Trimmed.")
    (span,) = wearable.sessions["t1"].spans
    assert (span.start_us, span.end_us) == (1_000_000, 13_000_000)
    phone.open("/label/t1")
    phone.until(lambda: phone.text(".at") == "1.0 s")
    assert [phone.find(bound).get_attribute("value") for bound in ("#from", "#to")] == ["1", "13"]


def test_every_other_phone_is_unpaired(walk: Walk) -> None:
    phone, pairing = walk.phone, walk.pairing
    lost = pairing.pair(pairing.code())
    phone.open("/privacy")
    assert phone.text("#phones") == "Paired phones: 2"
    phone.press("#unpair")
    phone.until(lambda: phone.text("#phones") == "Every other phone is unpaired.")
    assert pairing.phones() == 1 and not pairing.knows(lost)
    phone.open("/privacy")
    assert (phone.path, phone.text("#phones")) == ("/privacy", "Paired phones: 1")


def test_everything_is_downloaded_as_one_file(walk: Walk, tmp_path: Path) -> None:
    phone, wearer = walk.phone, walk.wearable.state.wearer
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    phone.chrome.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    phone.open("/privacy")
    phone.press("a[href='/export.zip']")
    phone.until(lambda: [*tmp_path.glob("*.zip")])
    (file,) = tmp_path.glob("*.zip")
    assert re.fullmatch(rf"{wearer}-\d{{4}}-\d\d-\d\d", file.stem)
    assert file.read_bytes() == b"PKrest", "all that the wearable gave"
    assert phone.path == "/privacy"
