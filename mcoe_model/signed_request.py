"""Requests that a wearable signs with its node key, for what it asks of the server beside Flower.

Signed are method, path, the body's hash, the time and a number that is used once; so a request that was overheard,
changed, kept for later or sent twice is refused. ECDSA over SHA-256, with the key that the wearable enrolled.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEY, TIME, ONCE, SIGNATURE = "mcoe-key", "mcoe-time", "mcoe-once", "mcoe-signature"
#: A request is good for this long, and a clock may be this wrong.
LIFETIME_S = 120.0


class RequestRefused(ValueError):
    """A request that is not signed as it must be, in one line."""


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


class Verifier:
    """Remembers the numbers that were used within a request's lifetime, so that none is used twice."""

    def __init__(self) -> None:
        self._used: dict[str, datetime.datetime] = {}

    def verify(
        self, headers: Mapping[str, str], method: str, path: str, body: bytes, now: datetime.datetime
    ) -> str:
        """The public key (PEM) that signed. Raises RequestRefused; skew of the clock is said by name."""
        try:
            pem = base64.b64decode(headers[KEY], validate=True).decode()
            signature = base64.b64decode(headers[SIGNATURE], validate=True)
            said, once = headers[TIME], headers[ONCE]
            signed_at = datetime.datetime.fromisoformat(said)
            age = (now - signed_at).total_seconds()
        except (KeyError, ValueError, TypeError, binascii.Error) as fault:
            raise RequestRefused("the request is not signed") from fault
        if abs(age) > LIFETIME_S:
            raise RequestRefused(f"the request was signed {age:.0f} s ago by the sender's clock; set the clock")
        if len(once) != 32:
            raise RequestRefused("the request is not signed")
        try:
            read_public_key(pem).verify(signature, _text(method, path, body, said, once), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as fault:
            raise RequestRefused("the signature does not fit the request") from fault
        self._used = {key: when for key, when in self._used.items() if abs((now - when).total_seconds()) <= LIFETIME_S}
        if once in self._used:
            raise RequestRefused("the request was made before")
        self._used[once] = signed_at
        return pem


def _text(method: str, path: str, body: bytes, time: str, once: str) -> bytes:
    return "\n".join([method, path, hashlib.sha256(body).hexdigest(), time, once]).encode()
