"""Requests that a wearable signs with its node key, for what it asks of the server beside Flower.

Signed are method, path, the body's hash, the time and a number that is used once; so a request that was overheard,
changed, kept for later or sent twice is refused. ECDSA over SHA-256, with the key that the wearable enrolled.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcoe_model.files import write_bytes

KEY, TIME, ONCE, SIGNATURE = "mcoe-key", "mcoe-time", "mcoe-once", "mcoe-signature"
#: A request is good for this long, and a clock may be this wrong.
LIFETIME_S = 120.0
#: Lines after which a verifier's file is begun anew.
MAX_LINES = 10_000
#: The letters of a PEM key on the curve P-384, which has 215 of them.
_PEM = r"[\x20-\x7e\n]{1,1000}"
#: How the file holds a time, with its zone: a part of it is none.
_TIME = "%Y-%m-%dT%H:%M:%S.%f%z;"


class RequestRefused(ValueError):
    """A request that is not signed as it must be, in one line."""


class ClockWrong(RequestRefused):
    """A request that was signed too long ago, or in the future, by its sender's clock."""


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key, as it is enrolled and as Flower keeps it."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def read_public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Raises RequestRefused for anything but a PEM key on the curve P-384."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise RequestRefused("the public key cannot be read") from fault
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise RequestRefused("the public key must be on the curve P-384")
    return key


def sign(key: ec.EllipticCurvePrivateKey, method: str, path: str, body: bytes = b"") -> dict[str, str]:
    """The headers that sign a request, as of now."""
    now, once = datetime.datetime.now(datetime.UTC).isoformat(), secrets.token_hex(16)
    signature = key.sign(_text(method, path, body, now, once), ec.ECDSA(hashes.SHA256()))
    encoded = {KEY: public_pem(key).encode(), SIGNATURE: signature}
    return {TIME: now, ONCE: once} | {name: base64.b64encode(value).decode() for name, value in encoded.items()}


def named_key(value: str | bytes | None) -> str | None:
    """The public key (PEM) that a header names, whoever sent it; None for what cannot be one."""
    try:
        named = base64.b64decode(value or "", validate=True).decode()
    except ValueError:
        return None
    return named if re.fullmatch(_PEM, named) else None


class Verifier:
    """Remembers the numbers that were used within a request's lifetime, so that none is used twice.

    With a ``file`` this holds over a restart: a number is in it, synced, before its request is believed. Threads may
    share a verifier.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lines = 0
        self._used: dict[str, datetime.datetime] = {}
        self._using = threading.Lock()
        if file is not None and file.exists():
            for line in file.read_bytes().splitlines():
                with suppress(ValueError):  # cut by a full disk or a power cut, before its request was believed
                    once, when = line.decode().split(" ", 1)
                    self._used[once] = datetime.datetime.strptime(when, _TIME)

    def verify(
        self,
        headers: Mapping[str, str],
        method: str,
        path: str,
        body: bytes,
        now: datetime.datetime,
        admit: Callable[[str], None] = lambda key: None,
    ) -> str:
        """The public key (PEM) that signed. ``admit`` raises for a stranger's, of which nothing is remembered.

        Raises RequestRefused, in which skew of the clock is said by name, and DiskFull or OSError when the number
        cannot be remembered.
        """
        try:
            pem = base64.b64decode(headers[KEY], validate=True).decode()
            signature = base64.b64decode(headers[SIGNATURE], validate=True)
            said, once = headers[TIME], headers[ONCE]
            signed_at = datetime.datetime.fromisoformat(said)
            age = (now - signed_at).total_seconds()
            signed_at = signed_at.astimezone(datetime.UTC)
        except (KeyError, ValueError, TypeError, OverflowError, binascii.Error) as fault:
            raise RequestRefused("the request is not signed") from fault
        if abs(age) > LIFETIME_S:
            raise ClockWrong(f"the request was signed {age:.0f} s ago by the sender's clock; set the clock")
        if len(once) != 32:
            raise RequestRefused("the request is not signed")
        try:
            read_public_key(pem).verify(signature, _text(method, path, body, said, once), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as fault:
            raise RequestRefused("the signature does not fit the request") from fault
        admit(pem)
        with self._using:
            recent = {key: when for key, when in self._used.items() if abs((now - when).total_seconds()) <= LIFETIME_S}
            if once in recent:
                raise RequestRefused("the request was made before")
            self._used = recent | {once: signed_at}
            self._remember(once)
        return pem

    def _remember(self, once: str) -> None:
        if self._file is None:
            return
        lines, self._lines = self._lines, 0  # until it is written: a line that is torn is the last of its file
        if 0 < lines < MAX_LINES:
            with self._file.open("a") as file:
                file.write(_line(once, self._used[once]))
                file.flush()
                os.fsync(file.fileno())
        else:  # begin the file anew, with what may still be used twice
            write_bytes(self._file, "".join(_line(*used) for used in self._used.items()).encode())
            lines = 0
        self._lines = lines + 1


def _line(once: str, when: datetime.datetime) -> str:
    return f"{once} {when.strftime(_TIME)}\n"


def _text(method: str, path: str, body: bytes, time: str, once: str) -> bytes:
    return "\n".join([method, path, hashlib.sha256(body).hexdigest(), time, once]).encode()
