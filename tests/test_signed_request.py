"""Signed requests: whatever was changed, kept, repeated or made up is refused, and the reason is said."""

from __future__ import annotations

import base64
import datetime

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
@settings(max_examples=200, deadline=None)
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
