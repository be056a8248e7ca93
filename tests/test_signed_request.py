"""Signed requests: whatever was changed, kept, repeated or made up is refused, and the reason is said."""

from __future__ import annotations

import base64
import datetime
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.signed_request import (
    KEY,
    LIFETIME_S,
    ONCE,
    SIGNATURE,
    TIME,
    RequestRefused,
    Verifier,
    public_pem,
    read_public_key,
    sign,
)

OURS, ANOTHER = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
PATH, BODY = "/v1/device/withdraw", b"{}"


def now(later: float = 0.0) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later)


def refusal(headers: dict[str, str], path: str = PATH, body: bytes = BODY, method: str = "POST", later: float = 0.0
) -> str:  # fmt: skip
    with pytest.raises(RequestRefused) as raised:
        Verifier().verify(headers, method, path, body, now(later))
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_whoever_signed_is_known_by_the_key() -> None:
    verifier = Verifier()
    for key in (OURS, ANOTHER):
        assert verifier.verify(sign(key, "POST", PATH, BODY), "POST", PATH, BODY, now()) == public_pem(key)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", PATH, BODY), ("POST", "/v1/device/forget", BODY), ("POST", PATH + "/", BODY), ("POST", PATH, b"{ }")],
)
def test_a_request_that_was_changed_is_refused(method: str, path: str, body: bytes) -> None:
    assert "does not fit" in refusal(sign(OURS, "POST", PATH, BODY), path, body, method)


def test_headers_that_were_changed_are_refused() -> None:
    headers, other = sign(OURS, "POST", PATH, BODY), sign(OURS, "POST", PATH, BODY)
    for name in (TIME, ONCE, SIGNATURE):
        assert "does not fit" in refusal(headers | {name: other[name]})
    stranger = base64.b64encode(public_pem(ANOTHER).encode()).decode()
    assert "does not fit" in refusal(headers | {KEY: stranger})


@pytest.mark.parametrize("name", [KEY, TIME, ONCE, SIGNATURE])
@pytest.mark.parametrize("value", [None, "", "?", "é", "0", "2026-01-01T00:00:00", "-----BEGIN PUBLIC KEY-----"])
def test_headers_that_are_missing_or_nonsense_are_refused(name: str, value: str | None) -> None:
    headers = sign(OURS, "POST", PATH, BODY)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    assert refusal(headers)


@given(st.dictionaries(st.sampled_from([KEY, TIME, ONCE, SIGNATURE]), st.text(max_size=200)))
@settings(max_examples=200)
def test_any_text_in_a_header_is_refused_and_nothing_else_happens(changes: dict[str, str]) -> None:
    if changes:
        assert refusal(sign(OURS, "POST", PATH, BODY) | changes)


@pytest.mark.parametrize("later", [LIFETIME_S + 5, 600.0, -LIFETIME_S - 5, 1e9])
def test_a_request_of_another_time_is_refused_and_the_clock_named(later: float) -> None:
    assert "set the clock" in refusal(sign(OURS, "POST", PATH, BODY), later=later)


def test_a_clock_may_be_a_little_wrong() -> None:
    for later in (LIFETIME_S - 5, 5 - LIFETIME_S):
        assert Verifier().verify(sign(OURS, "POST", PATH, BODY), "POST", PATH, BODY, now(later))


def test_a_request_is_good_for_one_time() -> None:
    """Also after others have been made, and as long as it would be good otherwise."""
    verifier, headers = Verifier(), sign(OURS, "POST", PATH, BODY)
    assert verifier.verify(headers, "POST", PATH, BODY, now(5 - LIFETIME_S))
    for later in (0.0, LIFETIME_S - 5):
        assert verifier.verify(sign(ANOTHER, "POST", PATH, BODY), "POST", PATH, BODY, now())
        with pytest.raises(RequestRefused, match="made before"):
            verifier.verify(headers, "POST", PATH, BODY, now(later))


def test_a_refused_request_uses_up_nothing() -> None:
    verifier, headers = Verifier(), sign(OURS, "POST", PATH, BODY)
    with pytest.raises(RequestRefused):
        verifier.verify(headers, "POST", PATH, b"other", now())
    assert verifier.verify(headers, "POST", PATH, BODY, now()) == public_pem(OURS)


def test_a_key_of_another_kind_is_refused() -> None:
    weak = ec.generate_private_key(ec.SECP256R1())
    assert "P-384" in refusal(sign(weak, "POST", PATH, BODY))
    other = rsa.generate_private_key(65537, 2048).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    for text, reason in ((pem, "P-384"), ("no key", "cannot be read"), ("", "cannot be read")):
        with pytest.raises(RequestRefused, match=reason):
            read_public_key(text)


def test_the_private_key_is_in_no_header() -> None:
    number = OURS.private_numbers().private_value
    sent = " ".join(sign(OURS, "POST", PATH, BODY).values())
    assert str(number) not in sent and f"{number:x}" not in sent
    assert base64.b64encode(number.to_bytes(48, "big")).decode() not in sent


def test_what_was_used_stays_used_over_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "used"
    used = [sign(OURS, "POST", PATH, BODY) for _ in range(3)]
    before = Verifier(file)
    for headers in used:
        before.verify(headers, "POST", PATH, BODY, now())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for _ in range(2):
        after = Verifier(file)
        for headers in used:
            with pytest.raises(RequestRefused, match="made before"):
                after.verify(headers, "POST", PATH, BODY, now())
        used.append(sign(OURS, "POST", PATH, BODY))
        after.verify(used[-1], "POST", PATH, BODY, now())


def test_the_file_of_used_requests_is_begun_anew_with_what_may_be_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcoe_model.signed_request.MAX_LINES", 5)
    file, verifier = tmp_path / "used", Verifier(tmp_path / "used")
    for _ in range(5):
        verifier.verify(sign(OURS, "POST", PATH, BODY), "POST", PATH, BODY, now())
    assert len(file.read_text().splitlines()) == 5
    assert public_pem(OURS).splitlines()[1] not in file.read_text()
    monkeypatch.setattr("mcoe_model.signed_request.LIFETIME_S", 0.0)
    last = sign(OURS, "POST", PATH, BODY)
    verifier.verify(last, "POST", PATH, BODY, datetime.datetime.fromisoformat(last[TIME]))
    assert [line.split()[0] for line in file.read_text().splitlines()] == [last[ONCE]]


@pytest.mark.parametrize("left", ["0123", "0" * 32 + " 2026-1", "0" * 32 + " 2026-11-21", "0" * 32 + " ", "\n", "\xff"])
def test_a_line_that_a_power_cut_left_is_no_harm(tmp_path: Path, left: str) -> None:
    file, used = tmp_path / "used", sign(OURS, "POST", PATH, BODY)
    Verifier(file).verify(used, "POST", PATH, BODY, now())
    with file.open("ab") as torn:
        torn.write(left.encode("latin-1"))
    again = Verifier(file)
    with pytest.raises(RequestRefused, match="made before"):
        again.verify(used, "POST", PATH, BODY, now())
    again.verify(sign(OURS, "POST", PATH, BODY), "POST", PATH, BODY, now())


def test_a_request_that_cannot_be_remembered_is_not_believed_and_the_next_one_is(tmp_path: Path) -> None:
    file, used = tmp_path / "used", sign(OURS, "POST", PATH, BODY)
    verifier = Verifier(file)
    verifier.verify(used, "POST", PATH, BODY, now())
    file.unlink()
    file.mkdir()  # nothing can be appended to it
    with pytest.raises(OSError, match="directory"):
        verifier.verify(sign(OURS, "POST", PATH, BODY), "POST", PATH, BODY, now())
    file.rmdir()
    later = sign(OURS, "POST", PATH, BODY)
    verifier.verify(later, "POST", PATH, BODY, now())
    for headers in (used, later):
        with pytest.raises(RequestRefused, match="made before"):
            Verifier(file).verify(headers, "POST", PATH, BODY, now())


def test_of_a_strangers_request_nothing_is_remembered(tmp_path: Path) -> None:
    def refuse(key: str) -> None:
        raise RequestRefused(f"a stranger: {key == public_pem(OURS)}")

    file = tmp_path / "used"
    with pytest.raises(RequestRefused, match="stranger: True"):
        Verifier(file).verify(sign(OURS, "POST", PATH, BODY), "POST", PATH, BODY, now(), refuse)
    assert not file.exists()
