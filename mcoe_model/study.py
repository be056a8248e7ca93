"""A study's key pair, and files that only the study can read: what wearers hand over to researchers.

An X25519 key of one use meets the study's (RFC 7748), HKDF (RFC 5869) makes of their secret a key bound to both public
keys, and under that a data key is wrapped, which seals the content as `mcoe_model.sealed` does. Whoever has the file
and not the study's private key, its writer included, reads nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcoe_model.errors import DataInvalid, DataMissing, OutputExists
from mcoe_model.files import fsync_folder, write_bytes
from mcoe_model.sealed import KEY_BYTES, read_sealed, write_sealed

PRIVATE_FILE, PUBLIC_FILE = "study.key", "study.pub"
_PUBLIC, _PRIVATE = "mcoe-study:", "mcoe-study-private:"
_KEY = r"[A-Za-z0-9_-]{43}="
_MAGIC = b"MCOE-STUDY-1\n"
_CONTEXT = "study export"
_NONCE_BYTES, _TAG_BYTES = 12, 16
_HEAD_BYTES = len(_MAGIC) + KEY_BYTES + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES


@dataclass(frozen=True)
class StudyKey:
    """The public key (32 bytes), which every wearable of the study may have."""

    public: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256, to be compared."""
        return hashlib.sha256(self.public).hexdigest()

    def to_line(self) -> str:
        """As a line of text."""
        return _PUBLIC + base64.urlsafe_b64encode(self.public).decode()

    @staticmethod
    def from_line(line: str) -> StudyKey:
        """Raises DataInvalid for anything else than what `to_line` made."""
        return StudyKey(_decoded(line, _PUBLIC, "this is no study's public key: one line that begins with mcoe-study:"))


def make_study_key(folder: Path) -> StudyKey:
    """Make a key pair: the private part in a file of mode 0600, the public one beside it. Raises OutputExists."""
    private, public = folder / PRIVATE_FILE, folder / PUBLIC_FILE
    if private.exists() or public.exists():
        raise OutputExists(f"{folder} holds a study's key already; what was sealed with it needs it, so it stays")
    made = X25519PrivateKey.generate()
    key = StudyKey(made.public_key().public_bytes_raw())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{_PRIVATE}{base64.urlsafe_b64encode(made.private_bytes_raw()).decode()}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(folder)
    write_bytes(public, f"{key.to_line()}\n".encode())
    return key


def read_public_key(path: Path) -> StudyKey:
    """Raises DataMissing, DataInvalid."""
    return StudyKey.from_line(_text(path))


def read_private_key(path: Path) -> X25519PrivateKey:
    """Raises DataMissing, DataInvalid."""
    refusal = f"{path} holds no study's private key; `mcoe-server study new` made one as {PRIVATE_FILE}"
    return X25519PrivateKey.from_private_bytes(_decoded(_text(path), _PRIVATE, refusal))


def write_for_study(path: Path, study: StudyKey, content: Iterable[bytes]) -> None:
    """Write ``content`` atomically so that only the study can read it. Raises DiskFull, DataInvalid."""
    once = X25519PrivateKey.generate()
    public = once.public_key().public_bytes_raw()
    try:
        secret = once.exchange(X25519PublicKey.from_public_bytes(study.public))
    except ValueError as fault:
        raise DataInvalid("this public key protects nothing; ask the study for its own") from fault
    wrapping = _wrapping_key(secret, public, study.public)
    data_key, nonce = os.urandom(KEY_BYTES), os.urandom(_NONCE_BYTES)
    head = _MAGIC + public + nonce + AESGCM(wrapping).encrypt(nonce, data_key, _MAGIC)
    write_sealed(path, data_key, _CONTEXT, content, head)


def read_for_study(path: Path, key: X25519PrivateKey) -> Iterator[bytes]:
    """The content, piece by piece; each one is as it was when it is yielded, the whole only at the end.

    Raises DataMissing, DataInvalid for a file of another study, and for one that was changed or cut off.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (FileNotFoundError, IsADirectoryError) as fault:
        raise DataMissing(f"there is no file {path}") from fault
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise DataInvalid(f"{path} is no export for a study, or it was cut off")
    public, rest = head[len(_MAGIC) :][:KEY_BYTES], head[len(_MAGIC) + KEY_BYTES :]
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(public))
        wrapping = _wrapping_key(secret, public, key.public_key().public_bytes_raw())
        data_key = AESGCM(wrapping).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _MAGIC)
    except (InvalidTag, ValueError) as fault:
        raise DataInvalid(f"{path} is for another study's key, or was changed; nothing of it is used") from fault
    yield from read_sealed(path, data_key, _CONTEXT, _HEAD_BYTES)


def _wrapping_key(secret: bytes, once: bytes, study: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, once + study, b"mcoe study export").derive(secret)


def _decoded(line: str, begins: str, refusal: str) -> bytes:
    found = re.fullmatch(re.escape(begins) + f"({_KEY})", line.strip())
    try:
        content = base64.urlsafe_b64decode(found[1]) if found else b""
    except binascii.Error:
        content = b""
    if len(content) != KEY_BYTES:
        raise DataInvalid(refusal)
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as fault:
        raise DataMissing(f"there is no key {path}") from fault
    except UnicodeDecodeError as fault:
        raise DataInvalid(f"{path} holds no key of a study") from fault
