"""The device's own name and certificate. Nobody else vouches for it: its fingerprint is on the sticker."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcoe_model.errors import DataInvalid
from mcoe_model.files import write_bytes

#: The longest that phones accept: https://support.apple.com/en-us/103769.
DAYS = 825
#: A certificate with fewer days left is renewed when the page starts; a sticker has to be printed anew then.
_RENEW_DAYS = 30
#: Clocks of phones, and of a wearable before it has reached a time server, may be this much behind.
_SKEW = datetime.timedelta(days=1)
#: Letters and digits that nobody takes for another.
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


@dataclass(frozen=True)
class DeviceCertificate:
    """``name`` is what the device is reached by; ``fingerprint`` SHA-256 of the certificate, 64 hex digits."""

    name: str
    fingerprint: str
    certificate: Path
    key: Path


def readable(fingerprint: str) -> str:
    """Hexadecimal digits as browsers show them: upper-case pairs with colons between."""
    digits = fingerprint.upper()
    return ":".join(digits[first : first + 2] for first in range(0, len(digits), 2))


def device_certificate(folder: Path, now: datetime.datetime | None = None) -> DeviceCertificate:
    """The certificate in this folder: made with a new name when there is none, renewed under its name in time.

    Raises DataInvalid for files that were spoilt.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    path, key_path = folder / "page.crt", folder / "page.key"
    found = _read(path) if path.exists() and key_path.exists() else None
    if found is None or found.not_valid_after_utc - now < datetime.timedelta(days=_RENEW_DAYS):
        name = _name_of(found) if found else f"mcoe-{''.join(secrets.choice(ALPHABET) for _ in range(4))}.local"
        found = _make(path, key_path, name, now)
    return DeviceCertificate(_name_of(found), found.fingerprint(hashes.SHA256()).hex(), path, key_path)


def _make(path: Path, key_path: Path, name: str, now: datetime.datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    loopback = [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName("localhost"), *loopback])
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now - _SKEW + datetime.timedelta(days=DAYS))
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)  # killed between the two writes, there is a key alone, and both are made again
    write_bytes(key_path, private)
    os.chmod(key_path, 0o600)
    write_bytes(path, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as fault:
        raise DataInvalid(f"{path} is no certificate ({fault}); delete it to have a new one made") from fault


def _name_of(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
