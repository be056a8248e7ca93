"""The fleet's own certificate authority, and the server's certificate that it signs.

A wearable trusts this authority and no other: it learns the authority's fingerprint from its invitation. The authority
lives for ten years, the server's certificate for one; renewing the server's certificate changes nothing for a wearable.

A new authority takes two steps. After `begin_rotation` there are two: the server's certificate is still the old one's,
and wearables are told of both by the server that they trust. `finish_rotation` makes the server's certificate the new
one's and drops the old. Either step may be killed at any point and is finished by calling it again.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcoe_model.errors import DataInvalid, DataMissing, OutputExists
from mcoe_model.files import fsync_folder, write_bytes

#: The files of the authority, and of the one that will take its place.
AUTHORITY, NEXT = "ca", "next-ca"
AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
#: Clocks of wearables may be this much behind.
_SKEW = datetime.timedelta(hours=1)
_HOST_NAME = re.compile(r"(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9-]{1,63})*")


def make_authority(folder: Path, name: str = AUTHORITY) -> None:
    """Write a new authority's ``NAME.crt`` and ``NAME.key`` (mode 0600)."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mcoe fleet authority")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )
    certificate = (
        _lasting(AUTHORITY_DAYS)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    write_bytes(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(folder / f"{name}.key", key)


def begin_rotation(folder: Path) -> None:
    """Make the next authority beside the one that is. Raises OutputExists while there is one."""
    if (folder / f"{NEXT}.key").exists():
        raise OutputExists("a new authority is there already; next: mcoe-server certificates finish-rotation")
    make_authority(folder, NEXT)


def finish_rotation(folder: Path) -> None:
    """Make the server's certificate the next authority's, and that one the only one. Raises DataMissing without it."""
    if not (folder / f"{NEXT}.key").exists():
        raise DataMissing("no new authority is there; make one with: mcoe-server certificates rotate-authority")
    if (folder / f"{NEXT}.crt").exists():
        make_server_certificate(folder, names_of(read_certificate(folder / "server.crt")), NEXT)
        os.replace(folder / f"{NEXT}.crt", folder / f"{AUTHORITY}.crt")
    os.replace(folder / f"{NEXT}.key", folder / f"{AUTHORITY}.key")
    fsync_folder(folder)


def authorities(folder: Path) -> str:
    """The certificates (PEM) that wearables are to trust: the authority's, and the next one's while there is one."""
    try:
        # First, since a rotation that ends meanwhile makes it the authority's.
        coming = _read(folder / f"{NEXT}.crt") if (folder / f"{NEXT}.key").exists() else b""
    except DataMissing:
        coming = b""
    here = _read(folder / f"{AUTHORITY}.crt")
    return (here if here == coming else here + coming).decode()


def make_server_certificate(folder: Path, names: Sequence[str], by: str = AUTHORITY) -> None:
    """Write ``server.key`` (mode 0600) and ``server.crt`` for these host names and addresses, signed by the authority.

    Raises DataMissing without an authority, DataInvalid for a name that no host can have.
    """
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    authority = read_certificate(folder / f"{by}.crt")
    signer = serialization.load_pem_private_key(_read(folder / f"{by}.key"), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _lasting(SERVER_DAYS)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    _write_key(folder / "server.key", key)
    write_bytes(folder / "server.crt", certificate.public_bytes(serialization.Encoding.PEM))


def read_certificate(path: Path) -> x509.Certificate:
    """A PEM certificate. Raises DataMissing or DataInvalid."""
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as fault:
        raise DataInvalid(f"{path} is no certificate ({fault}); restore it from a backup") from fault


def names_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a server certificate is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, 64 hex digits: what an invitation names the authority by."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def days_left(certificate: x509.Certificate, now: datetime.datetime) -> float:
    """Days until the certificate expires; negative afterwards."""
    return (certificate.not_valid_after_utc - now).total_seconds() / 86400


def _lasting(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise DataInvalid(
                f"{name!r} is no host name or address, such as fleet.example.org or 10.0.0.5; "
                "write an international name in its xn-- form"
            ) from None
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_bytes(path, content)  # a temporary file is made with mode 0600, and keeps it
    os.chmod(path, 0o600)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as fault:
        raise DataMissing(f"{path} is not there; `mcoe-server init` makes it, or restore it from a backup") from fault
