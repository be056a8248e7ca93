"""The device's certificate, who may pair, and what a sticker says."""

from __future__ import annotations

import datetime
import io
import ssl
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segno
from PIL import Image, ImageDraw

from client.page.certificate import device_certificate, readable
from client.page.pairing import MOST_PHONES, TRIES, Pairing, PairingRefused
from client.page.sticker import SIZE, Invitation, sticker_png, terminal_qr


def test_a_certificate_is_made_once_and_its_key_is_nobody_elses(tmp_path: Path) -> None:
    made = device_certificate(tmp_path)
    assert made == device_certificate(tmp_path)
    assert made.name.startswith("mcoe-") and made.name.endswith(".local") and len(made.name) == len("mcoe-XXXX.local")
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert readable(made.fingerprint)[:5] == f"{made.fingerprint[:2]}:{made.fingerprint[2:4]}".upper()
    assert ssl._ssl._test_decode_cert(str(made.certificate))["subjectAltName"] == (  # type: ignore[attr-defined]
        ("DNS", made.name), ("DNS", "localhost"), ("IP Address", "127.0.0.1"), ("IP Address", "0:0:0:0:0:0:0:1"),
    )  # fmt: skip


def test_a_certificate_is_renewed_in_time_under_its_name(tmp_path: Path) -> None:
    made = device_certificate(tmp_path)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=780)
    assert device_certificate(tmp_path, later) == made
    renewed = device_certificate(tmp_path, later + datetime.timedelta(days=30))
    assert renewed.name == made.name and renewed.fingerprint != made.fingerprint


def test_a_code_pairs_one_phone(tmp_path: Path) -> None:
    pairing = Pairing(tmp_path)
    code = pairing.code()
    assert code == Pairing(tmp_path).code(), "the sticker's code stays until it is used"
    token = pairing.pair(f" {code.upper().replace('-', '')} ")
    assert pairing.knows(token) and not pairing.knows(token[:-1]) and not pairing.knows(None)
    with pytest.raises(PairingRefused, match="no pairing code"):
        pairing.pair(code)
    assert pairing.code() != code
    assert token not in (tmp_path / "pairing.json").read_text()
    assert (tmp_path / "pairing.json").stat().st_mode & 0o777 == 0o600


def test_five_wrong_tries_end_a_code(tmp_path: Path) -> None:
    pairing = Pairing(tmp_path)
    code = pairing.code()
    for left in range(TRIES - 1, 0, -1):
        with pytest.raises(PairingRefused, match=f"tries left: {left}"):
            Pairing(tmp_path).pair("2222-2222")
    with pytest.raises(PairingRefused, match="five wrong codes"):
        pairing.pair("2222-2222")
    with pytest.raises(PairingRefused, match="no pairing code"):
        pairing.pair(code)


def test_phones_can_be_unpaired(tmp_path: Path) -> None:
    pairing = Pairing(tmp_path)
    tokens = [pairing.pair(pairing.code()) for _ in range(MOST_PHONES + 1)]
    assert [pairing.knows(token) for token in tokens] == [False] + [True] * MOST_PHONES
    pairing.unpair(but=tokens[3])
    assert [pairing.knows(token) for token in tokens] == [number == 3 for number in range(MOST_PHONES + 1)]
    waiting = pairing.code()
    pairing.unpair(but=tokens[3])
    assert pairing.code() == waiting
    pairing.unpair()
    assert pairing.phones() == 0 and pairing.tries_left() == 0
    with pytest.raises(PairingRefused, match="no pairing code"):
        pairing.pair(waiting)


def test_a_sticker_leads_a_phone_to_the_page(tmp_path: Path) -> None:
    own = device_certificate(tmp_path)
    invitation = Invitation(own.name, 8443, own.fingerprint, "abcd-2345")
    assert invitation.link == f"https://{own.name}:8443/pair#abcd-2345"
    assert Invitation("localhost", 8443, "", "abcd-2345", tls=False).link == "http://localhost:8443/pair#abcd-2345"
    with Image.open(io.BytesIO(sticker_png(invitation))) as picture:
        assert (picture.size, picture.format) == (SIZE, "PNG")
        assert picture.getextrema() == (0, 255)
        dark = np.asarray(picture) < 128
    expected = np.array(segno.make(invitation.link, micro=False, error="m").matrix, bool)
    corner = np.argwhere(dark).min(axis=0)  # of the code, whose modules are 8 pixels wide
    seen = dark[corner[0] + 4 :: 8, corner[1] + 4 :: 8][: len(expected), : len(expected)]
    assert (seen == expected).all(), "what a camera reads is the link"
    assert len(terminal_qr(invitation.link).splitlines()) > 15


def test_a_sticker_says_name_code_and_fingerprint_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[float, float, float, float]] = {}
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, at: tuple[float, float], words: str, **how: Any) -> None:
        if words:
            drawn[words] = self.textbbox(at, words, font=how["font"])
        draw(self, at, words, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    fingerprint = "".join(f"{byte:02x}" for byte in range(0x9C, 0xBC))
    sticker_png(Invitation("mcoe-wwww.local", 18443, fingerprint, "wwww-mmmm"))
    assert [*drawn] == [
        "mcoe-wwww", ".local:18443", "Pairing code", "wwww-mmmm", "Certificate SHA-256",
        "9C:9D:9E:9F:A0:A1:A2:A3:A4:A5:A6:A7:A8:A9:AA:AB", "AC:AD:AE:AF:B0:B1:B2:B3:B4:B5:B6:B7:B8:B9:BA:BB",
    ]  # fmt: skip
    sticker_png(Invitation("mcoe-wwww.local", 18443, "dd" * 32, "wwww-mmmm"))  # the widest
    boxes = [*drawn.values()]
    assert all(left >= 0 and top >= 0 and right <= SIZE[0] and bottom <= SIZE[1] for left, top, right, bottom in boxes)
    apart = [
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for number, a in enumerate(boxes[:7]) for b in boxes[:number]
    ]  # fmt: skip
    assert all(apart)
