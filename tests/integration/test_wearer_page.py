"""A wearer's first day: the real `mcoe-client`, its camera in another process, and a real browser of a phone's size."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from phone import Phone, a_phone
from real_fleet import Process
from real_wearable import AEDAT4, untrained_model

CLIENT = (sys.executable, "-c", "from client.cli import app; app()")
PASSPHRASE = "seven quiet lanterns"


def client(folder: Path, *words: str) -> Any:
    """What a command answers as JSON."""
    said = subprocess.run(
        [*CLIENT, *words, "--dir", str(folder), "--json"], capture_output=True, text=True, timeout=300
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


@contextmanager
def camera(folder: Path) -> Iterator[str]:
    """A camera whose pictures come from another process, over dv-processing's network transport; the device's name."""
    folder.mkdir(mode=0o700)
    command = (sys.executable, "-m", "client.cameras.serve", "simulated:7", "--dir", folder)
    process = Process(folder.parent / "camera.log", *command)
    try:
        yield f"network:{folder}"
    finally:
        process.end(signal.SIGKILL)


@contextmanager
def worn(folder: Path, device: str, *flags: str, **settings: str) -> Iterator[int]:
    """A wearable that runs meanwhile; its page's port. It ends well when it is asked to."""
    flags = flags or ("--page-port", "0")
    command = [*CLIENT, "--device", device, "--page-host", "127.0.0.1", *flags, "--dir", str(folder)]
    environment = os.environ | {f"MCOE_CLIENT_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"at port (\d+)", line)
            assert found, line + process.communicate()[1]
            yield int(found[1])
            process.send_signal(signal.SIGTERM)
            _, complained = process.communicate(timeout=120)
            assert process.returncode == 0, complained
        finally:
            process.kill()


def test_a_first_day_with_the_wearable(tmp_path: Path) -> None:
    folder, texts = tmp_path / "wearable", tmp_path / "texts"
    model = untrained_model(tmp_path / "tiny.safetensors")
    client(folder, "model", "import", str(model))
    with ExitStack() as stack:
        device = stack.enter_context(camera(tmp_path / "camera"))
        with worn(folder, device) as port:
            phone = stack.enter_context(a_phone(f"https://localhost:{port}", tmp_path))
            first_visit(phone, client(folder, "page")["code"])
            save_the_last_seconds(phone, folder)
            label_a_recording(phone)
            be_recognised(phone)
            withdraw(phone)
            lock_and_unlock(phone)
            assert phone.complaints() == []
            phone.open("/health")  # no stream of events that would miss the wearable
        nothing_is_plain(folder, model.read_bytes())
        texts.mkdir()
        (texts / "en.txt").write_text("study-2\n\nAnother text.\n")
        with worn(folder, device, "--page-port", str(port), consent_texts=str(texts)):
            a_changed_text_is_asked_again(phone)
            forget(phone)
        assert not list(folder.rglob("*.sealed")) and not list(folder.rglob("device.key"))


def first_visit(phone: Phone, code: str) -> None:
    phone.open(f"/pair#{code}")
    phone.look("1-pair")
    phone.press("#pair .primary")
    phone.until_at("/welcome")
    phone.look("2-welcome")
    phone.press("a.primary")
    phone.until_at("/consent")
    assert phone.chrome.execute_script("return document.querySelectorAll('[name=kind]:checked').length") == 0
    for kind in ("capture", "labels", "learning"):
        phone.press(f"#kind-{kind}")
    phone.look("3-consent")
    phone.press("#consent > .primary")
    phone.until_at("/secure")
    phone.type("#passphrase", PASSPHRASE)
    phone.type("#repeated", PASSPHRASE)
    phone.look("4-secure")
    phone.press("#secure > .primary")
    phone.until(lambda: len(phone.text("#recovery-key")) == len("-".join(["ABCD"] * 8)))
    phone.look("5-recovery")
    phone.press("#noted")
    phone.press("#go-on")
    phone.until_at("/fit")
    phone.until(lambda: float(phone.find("#fit").get_attribute("data-rate") or 0) >= 2)
    phone.look("6-fit")
    phone.press("#fit > .primary")
    phone.until_at("/try")
    phone.look("7-try")
    try_it_out(phone)
    phone.until_at("/ready")
    phone.press("a.primary")
    phone.until_at("/")


def try_it_out(phone: Phone) -> None:
    """Ten seconds of what the camera sees, which nobody can see again once they are deleted."""
    phone.press("#begin")
    phone.until(lambda: phone.find("#waiting").is_displayed())
    phone.until(lambda: phone.find("#seen").is_displayed())
    assert re.fullmatch(r"\d+ pictures and [\d,]+ changes of brightness\.", phone.text("#counts"))
    assert int(phone.find(".place").get_attribute("max")) > 30
    phone.look("7-tried-out")
    assert phone.status("/api/try-out/replay") == 200
    phone.press("#delete")
    phone.until_at("/ready")
    assert phone.status("/api/try-out/replay") == 404


def save_the_last_seconds(phone: Phone, folder: Path) -> None:
    """What the camera saw before the button was pressed is a recording, whole and ready to be labelled."""
    assert client(folder, "sessions", "list") == []
    phone.press("#save-last")
    phone.until_at("/label/")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded") == "yes")
    assert int(phone.find(".place").get_attribute("max")) > 30
    (saved,) = client(folder, "sessions", "list")
    assert phone.path == f"/label/{saved['id']}" and saved["state"] == "whole"
    phone.open("/")


def label_a_recording(phone: Phone) -> None:
    phone.press("#start")
    phone.until(lambda: "RECORDING" in phone.text("#strip"))
    phone.look("8-recording")
    phone.until(lambda: phone.text("#recorded") >= "0:03")
    phone.press("#stop")
    phone.until_at("/label/")
    phone.until(lambda: phone.find("#label").get_attribute("data-loaded") == "yes")
    phone.until(lambda: int(phone.find(".place").get_attribute("max")) > 30)
    phone.look("9-label")
    shown = [answer.text for answer in phone.chrome.find_elements("css selector", ".answers .answer")]
    assert shown[-2:] == ["Other / unsure", "Skip"] and len(shown) == 9
    phone.choose("#answer-happiness")
    phone.choose("#strength-4")
    phone.press("#answer > .primary")
    phone.until(lambda: phone.text("#guess-said") == "Saved: Happiness")
    phone.look("10-guess")
    phone.press("#guess .primary")
    phone.until_at("/")
    phone.open("/history")
    phone.look("11-history")
    assert "Happiness · strength 4" in phone.text("article.session")
    assert "Its pictures are deleted at the latest on" in phone.text("article.session")


def be_recognised(phone: Phone) -> None:
    """The expression of the moment, and how long it took, from what the camera sees now."""
    phone.open("/live")
    phone.until(lambda: phone.text("#live .expression strong"))
    phone.until(lambda: int(phone.text("#live .facts div:nth-child(1) dd").removesuffix(" ms")) > 0)
    phone.until(lambda: int(phone.text("#live .facts div:nth-child(2) dd")) > 0)
    phone.look("12-live")


def withdraw(phone: Phone) -> None:
    """Taking consent back stops a recording at once."""
    phone.open("/")
    phone.press("#start")
    phone.until(lambda: "RECORDING" in phone.text("#strip"))
    phone.open("/privacy")
    phone.press("[data-kind=capture] .withdraw")
    phone.until(lambda: "Not recording" in phone.text("#strip"))
    phone.open("/")
    phone.until(lambda: not phone.find("#start").is_enabled())
    phone.look("13-withdrawn")


def lock_and_unlock(phone: Phone) -> None:
    phone.open("/privacy")
    phone.press("#lock")
    unlock(phone)
    phone.until_at("/")


def unlock(phone: Phone) -> None:
    phone.until_at("/unlock")
    phone.look("14-locked")
    phone.type("#secret", PASSPHRASE)
    phone.press("#unlock .primary")


def a_changed_text_is_asked_again(phone: Phone) -> None:
    phone.open("/")
    unlock(phone)
    phone.until_at("/consent")
    phone.look("15-asked-again")
    assert "The text has changed" in phone.text("main .notice") and "Another text." in phone.text("article")
    phone.press("#kind-labels")
    phone.press("#consent > .primary")
    phone.until_at("/")
    phone.open("/privacy")
    assert "Version study-2" in phone.text("[data-kind=labels]")
    assert "Not agreed" in phone.text("[data-kind=learning]")


def forget(phone: Phone) -> None:
    phone.type("#forget-wearer", "somebody else")
    phone.press("#forget .danger")
    phone.until(lambda: "The code does not fit. Nothing was deleted." in phone.text(".wrong"))
    phone.find("#forget-wearer").clear()
    phone.type("#forget-wearer", phone.text("#wearer"))
    phone.press("#forget .danger")
    phone.until_at("/pair")


def nothing_is_plain(folder: Path, model: bytes) -> None:
    """No recording, no label and no passphrase is readable on the disk; the model names every emotion to everybody."""
    for path in folder.rglob("*"):
        if path.is_file() and (content := path.read_bytes()) != model:
            assert AEDAT4 not in content and PASSPHRASE.encode() not in content, path
            assert b"happiness" not in content, path
