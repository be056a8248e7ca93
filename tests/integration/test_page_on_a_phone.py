"""The page in a real browser on a stand-in wearable: hands, keyboards, lost connections, zoom, languages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from walked_page import Walk, a_daily_walk

from client.page.wearable_protocol import ModelChoice
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import EnrolmentRefused, Locked
from mcoe_model.invitation import Invitation

SCREENS = (
    "/",
    "/history",
    "/live",
    "/privacy",
    "/questions",
    "/fit",
    "/try",
    "/ready",
    "/consent",
    "/label/s0",
    "/label/s9",
)


INVITATION = f"mcoe-invitation:fleet.example.org:8443/{'0a' * 32}/{'t' * 32}/w-5x"


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with a_daily_walk(tmp_path_factory.mktemp("page")) as walk:
        yield walk


def test_the_square_is_moved_by_hand_by_keyboard_and_by_sliders(walk: Walk) -> None:
    phone = walk.phone
    phone.open("/fit")
    phone.until(lambda: "Looks good" in phone.text("#checks"))
    phone.until(lambda: float(phone.find("#fit").get_attribute("data-rate")) >= 3)  # ten, where nothing else runs
    phone.find("#square").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, "-", "-", "-")
    keyed = [phone.find(f"#{name}").get_attribute("value") for name in ("x", "y", "side")]
    assert keyed == ["60", "11", "234"]
    ActionChains(phone.chrome).drag_and_drop_by_offset(phone.find("#corner"), -60, -60).perform()
    ActionChains(phone.chrome).drag_and_drop_by_offset(phone.find("#square"), 10, 5).perform()
    phone.find("#rotation").send_keys(Keys.ARROW_RIGHT)
    phone.choose("#eye-left")
    phone.press("#fit > .primary")
    phone.until_at("/")
    chosen = walk.wearable.state.geometry
    assert chosen.side == pytest.approx(234 - 60 * 346 / 354, abs=2)
    assert (chosen.x, chosen.y) == (pytest.approx(60 + 10 * 346 / 354, abs=2), pytest.approx(11 + 5 * 346 / 354, abs=2))
    assert (chosen.rotation, chosen.eye) == (1, "left")
    phone.open("/fit")
    phone.find("#square").send_keys(*[Keys.SHIFT + Keys.ARROW_LEFT] * 20)
    phone.until(lambda: "outside the square" in phone.text("#checks"))
    walk.wearable.change(geometry=Geometry())


def test_a_label_given_without_a_connection_arrives_once(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("s1", 15)
    phone.open("/label/s1")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    phone.offline(True)
    phone.choose("#answer-surprise")
    phone.press("#answer > .primary")
    phone.until(lambda: "Kept on this phone" in phone.text("#connection"))
    assert json.loads(phone.chrome.execute_script("return localStorage['mcoe-forms']"))[0]["path"] == "/api/label"
    assert "label" not in wearable.calls
    phone.offline(False)
    phone.until(lambda: phone.text("#guess-model") == "The wearable took it for: Sadness. What you say counts.")
    assert (wearable.sessions["s1"].spans[0].label, wearable.calls.count("label")) == ("surprise", 1)
    assert phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]"

    phone.offline(True)  # and now the phone is put away before the connection is back
    phone.press("#undo")
    phone.until(lambda: "Kept on this phone" in phone.text("#connection"))
    phone.chrome.get("about:blank")
    phone.offline(False)
    phone.open("/live")
    phone.until(lambda: wearable.calls.count("undo") == 1)
    assert wearable.sessions["s1"].spans[0].label is None
    phone.until(lambda: phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]")


def test_a_label_for_a_locked_wearable_waits_on_the_phone(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*form: object) -> None:
        raise Locked("locked")

    phone, wearable = walk.phone, walk.wearable
    wearable.add("s3", 15)
    phone.open("/label/s3")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    with monkeypatch.context() as locked:
        locked.setattr(wearable, "label", refuse)
        phone.choose("#answer-fear")
        phone.press("#answer > .primary")
        phone.until(lambda: "Kept on this phone until it can be done: 1" in phone.text("#said"))
        (kept,) = json.loads(phone.chrome.execute_script("return localStorage['mcoe-forms']"))
        assert kept["path"] == "/api/label"
    phone.open("/live")
    phone.until(lambda: wearable.sessions["s3"].spans[0].label == "fear")
    phone.until(lambda: phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]")


def test_a_part_of_a_long_recording_is_chosen_and_labelled(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("s2", 90, spans=())
    phone.open("/label/s2")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    assert int(phone.find(".place").get_attribute("max")) == 900, "thirty seconds are shown at a time"
    phone.find("#to").send_keys(*[Keys.ARROW_LEFT] * 20)
    phone.find("#from").send_keys(*[Keys.ARROW_RIGHT] * 50)
    phone.press("#do-add")
    phone.until(lambda: "span=" in phone.path)
    assert wearable.calls.count("preview_span") < 35, "not for each of the 70 keys"
    (span,) = wearable.sessions["s2"].spans
    assert (span.start_us, span.end_us) == (5_000_000, 28_000_000)
    phone.until(lambda: phone.text(".at").startswith("5.0"))
    phone.choose("#answer-skip")
    phone.press("#answer > .primary")
    phone.until(lambda: phone.text("#guess-said") == "Saved: Skip")
    assert wearable.sessions["s2"].spans[0].label == "skip"
    phone.press("#discard-part")
    phone.press("#sure-yes")
    phone.until(lambda: phone.path == "/label/s2")
    assert wearable.sessions["s2"].spans == ()


def test_a_form_that_the_wearable_fails_at_does_not_hold_up_the_next(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise RuntimeError("a fault of the program")

    phone, wearable = walk.phone, walk.wearable
    wearable.recognise()
    monkeypatch.setattr(wearable, "take_model", fail)
    phone.open("/live")
    phone.press("#take-model")
    phone.until(lambda: "Something failed" in phone.text(".wrong"))
    assert not phone.find("#keep-model").is_displayed(), "it runs: there is nothing to go back to"
    wearable.change(model=ModelChoice("9c" * 8, None, "3f" * 8, False))
    phone.until(lambda: phone.find("#keep-model").is_displayed() and not phone.find("#take-model").is_displayed())
    phone.press("#keep-model")
    phone.until(lambda: "keep_model" in wearable.calls)
    phone.until(lambda: phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]")


def test_starting_without_a_connection_is_given_up_and_never_done_later(walk: Walk) -> None:
    phone, wearable = walk.phone, walk.wearable
    phone.open("/")
    phone.until(lambda: phone.find("#start").is_enabled())
    phone.offline(True)
    phone.press("#start")
    phone.until(lambda: "did not answer" in phone.text(".wrong"))
    phone.offline(False)
    phone.open("/")
    assert wearable.state.recording is None and "start" not in wearable.calls


def test_a_pasted_invitation_joins_once_the_wearer_has_agreed(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(invitation: Invitation) -> None:
        raise EnrolmentRefused("this invitation has expired")

    phone, wearable = walk.phone, walk.wearable
    phone.open("/privacy")
    phone.type("#invitation", "https://fleet.example.org")
    phone.press("#join button")
    phone.until(lambda: "This is no invitation" in phone.text(".wrong"))
    assert phone.find("#invitation").get_attribute("value"), "what was pasted is still there, to be looked at"
    phone.look("join-refused")
    phone.find("#invitation").clear()
    phone.type("#invitation", INVITATION)
    phone.press("#join button")
    phone.until(lambda: "agree" in phone.text(".wrong").lower())
    assert wearable.joined is None
    phone.press("[data-kind=updates] .agree")
    phone.until(lambda: phone.find("[data-kind=updates] .withdraw").is_displayed())
    phone.type("#invitation", f" {INVITATION} ")
    with monkeypatch.context() as refusing:
        refusing.setattr(wearable, "join", refuse)
        phone.press("#join button")
        phone.until(lambda: "did not take this wearable" in phone.text(".wrong"))
        quotation = phone.find(".wrong q")
        assert (quotation.get_attribute("lang"), quotation.text) == ("en", "this invitation has expired")
    phone.press("#join button")
    phone.until(lambda: phone.text("#member") == "This wearable belongs to a fleet.")
    phone.look("joined")
    assert wearable.joined == Invitation.from_line(INVITATION)
    kept = phone.chrome.execute_script("return JSON.stringify(localStorage)")
    assert INVITATION not in phone.chrome.page_source + kept


def test_whether_it_records_cannot_be_missed(walk: Walk) -> None:
    phone = walk.phone
    phone.open("/")
    phone.press("#start")
    phone.until(lambda: "RECORDING" in phone.text("#strip"))
    phone.until(lambda: phone.chrome.title.startswith("●") and phone.find("#stop").is_displayed())
    assert phone.chrome.switch_to.active_element.get_attribute("id") == "stop", "the focus is on what ends it"
    phone.open("/history")
    phone.until(lambda: "RECORDING" in phone.text("#strip"))
    phone.open("/privacy")
    phone.press("[data-kind=capture] .withdraw")
    phone.until(lambda: "Not recording" in phone.text("#strip"))
    phone.open("/")
    assert "you have not agreed" in phone.text("#refusals")
    phone.until(lambda: not phone.find("#start").is_enabled() and not phone.find("#save-last").is_enabled())
    phone.open("/privacy")
    phone.press("[data-kind=capture] .agree")
    phone.until(lambda: phone.find("[data-kind=capture] .withdraw").is_displayed())


@pytest.mark.parametrize("zoom", [1, 2])
def test_the_order_of_the_focus_is_that_of_the_screen(walk: Walk, zoom: int) -> None:
    phone = walk.phone
    phone.zoom(zoom)
    phone.open("/")
    phone.until(lambda: phone.find("#start").is_enabled())
    reached = phone.tab(8)
    phone.zoom(1)
    assert reached[:3] == ["To the content", "save-last", "start"]
    assert "Today" in reached


def test_what_stands_there_already_is_not_read_out_again(walk: Walk) -> None:
    """The stream tells first what the screen shows: a screen reader must not hear it a second time."""
    phone = walk.phone
    count = """window.told = 0;
    document.addEventListener("DOMContentLoaded", () => {
      const count = new MutationObserver(() => { window.told += 1; });
      count.observe(document.getElementById("strip"), {childList: true, subtree: true});
    });
    window.EventSource = class extends EventSource {
      constructor(address) {
        super(address);
        this.addEventListener("facts", () => { window.heard = true; }); // they follow the strip
      }
    };"""
    script = phone.chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": count})
    try:
        phone.open("/")
        phone.until(lambda: phone.chrome.execute_script("return window.heard"))
        assert phone.chrome.execute_script("return window.told") == 0
        phone.press("#start")
        phone.until(lambda: phone.find("#stop").is_displayed())
        phone.until(lambda: phone.chrome.execute_script("return window.told") > 0)
        phone.press("#stop")
        phone.until_at("/label/")
    finally:
        phone.chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_state_is_told_by_its_colour_alone(walk: Walk, language: str) -> None:
    """Each state says in words, or tells a screen reader, what its colour says."""
    phone = walk.phone
    phone.open("/privacy")
    walk.choose_language(language)

    agreed = phone.text("[data-kind=labels] .yes")
    phone.press("[data-kind=labels] .withdraw")
    phone.until(lambda: phone.find("[data-kind=labels] .agree").is_displayed())
    not_agreed = phone.text("[data-kind=labels] .no")
    assert agreed.strip("✓ ") not in ("", not_agreed.strip("✕ "))
    phone.open("/consent")
    for kind, checked in (("capture", True), ("labels", False)):
        box = phone.find(f"#kind-{kind}")
        assert box.aria_role == "checkbox" and box.accessible_name and box.is_selected() == checked
    phone.open("/privacy")
    assert phone.find(f"[data-language={language}]").get_attribute("aria-pressed") == "true"
    phone.press("[data-kind=labels] .agree")
    phone.until(lambda: phone.find("[data-kind=labels] .withdraw").is_displayed())

    phone.open("/")
    assert phone.find("#strip").aria_role == "status"
    idle, title = phone.text("#strip .state"), phone.chrome.title
    phone.press("#start")
    phone.until(lambda: phone.find("#stop").is_displayed() and phone.chrome.title != title)
    assert idle and phone.text("#strip .state strong") not in ("", idle) and phone.chrome.title == f"● {title}"
    phone.press("#stop")
    phone.until_at("/label/")

    phone.open("/fit")
    assert phone.find("#checks").aria_role == "status"
    phone.until(lambda: phone.text("#checks").startswith("✓"))
    good = phone.text("#checks")
    phone.find("#square").send_keys(*"-" * 50, *[Keys.SHIFT + Keys.ARROW_LEFT] * 20)
    phone.until(lambda: phone.text("#checks").startswith("✕"))
    assert phone.text("#checks").strip("✕ ") not in ("", good.strip("✓ "))
    phone.open("/privacy")
    walk.choose_language("en")


@pytest.mark.parametrize(("language", "zoom"), [("en", 1), ("de", 1), ("de", 2)])
def test_every_screen_fits_can_be_tapped_and_read_out(walk: Walk, language: str, zoom: int) -> None:
    phone, wearable = walk.phone, walk.wearable
    wearable.add("s0", 45, state="partial")
    wearable.add("s9", 15, raw_deleted=True)
    wearable.recognise()
    phone.complaints()  # of the tests before, which cut the connection
    phone.zoom(zoom)
    phone.open("/privacy")
    walk.choose_language(language)
    for screen in SCREENS:
        phone.open(screen)
        if screen == "/label/s0":
            phone.press("#trim summary")
        phone.look(f"{language}-{zoom}-{screen.strip('/').replace('/', '-') or 'today'}")
        loaded = phone.chrome.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert loaded and all(name.startswith((phone.address, "data:")) for name in loaded), loaded
    phone.zoom(1)
    phone.open("/privacy")
    walk.choose_language("en")
    assert phone.complaints() == []


def test_a_phone_that_was_unpaired_comes_in_again_with_what_it_kept(walk: Walk) -> None:
    phone, wearable, pairing = walk.phone, walk.wearable, walk.pairing
    asked = wearable.calls.count("label")
    wearable.add("s4", 15)
    phone.open("/label/s4")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    phone.offline(True)
    phone.choose("#answer-neutral")
    phone.press("#answer > .primary")
    phone.until(lambda: "Kept on this phone" in phone.text("#connection"))
    pairing.unpair()
    phone.offline(False)
    phone.until_at("/pair")
    phone.type("#code", pairing.code())
    phone.press("#pair .primary")
    phone.until_at("/")
    phone.until(lambda: wearable.sessions["s4"].spans[0].label == "neutral")
    phone.until(lambda: phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]")
    assert wearable.calls.count("label") == asked + 1


def test_what_a_phone_kept_of_one_wearer_is_not_said_for_the_next(walk: Walk) -> None:
    async def refuse(*form: object) -> None:
        raise Locked("locked")

    phone, wearable = walk.phone, walk.wearable
    before, asked = wearable.state.wearer, wearable.calls.count("label")
    wearable.add("s5", 15)
    phone.open("/label/s5")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wearable, "label", refuse)
        phone.choose("#answer-angry")
        phone.press("#answer > .primary")
        phone.until(lambda: "Kept on this phone until it can be done: 1" in phone.text("#said"))
        phone.chrome.get("about:blank")
        wearable.change(wearer="P02")
    try:
        phone.open("/live")
        phone.until(lambda: phone.chrome.execute_script("return localStorage['mcoe-forms']") == "[]")
        assert wearable.calls.count("label") == asked
    finally:
        wearable.change(wearer=before)
