"""The wearable's device key, from which every other key of its wearer's data hangs, and how it is kept.

With a passphrase (``unlock``) the key lies on the disk wrapped twice: by the passphrase, through scrypt, and by a
recovery key that is printed once. Without one (``keyfile``) it lies there as it is, in a file that only its user may
read: that suits laptops and demonstrations, and protects nothing once the device is lost.

Percival and Josefsson 2016, RFC 7914, for scrypt; Krawczyk and Eronen 2010, RFC 5869, for HKDF.
"""

from __future__ import annotations

import base64
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from mcoe_model.errors import DataInvalid, Locked, OutputExists
from mcoe_model.files import read_json, write_json
from mcoe_model.sealed import KEY_BYTES

#: scrypt takes 32 MB and a quarter of a second on a laptop: once a day is fine for a wearer, not for who guesses.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1
_SALT_BYTES, _NONCE_BYTES, _RECOVERY_BYTES = 16, 12, 20
_SHORTEST_PASSPHRASE = 8


@dataclass(frozen=True, repr=False)
class DeviceKey:
    """The key in memory. It is never printed."""

    secret: bytes

    def derive(self, purpose: str) -> bytes:
        """A key (32 bytes) for one purpose, such as the outbox; keys of different purposes tell nothing of another."""
        return _derive(self.secret, f"purpose {purpose}")

    def wrap(self, data_key: bytes, context: str) -> bytes:
        """A data key for keeping; whoever deletes this has deleted what the data key sealed."""
        return _wrap(self.derive("data keys"), data_key, context)

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The data key. Raises DataInvalid for what was wrapped by another key, or for another context."""
        try:
            return _unwrap(self.derive("data keys"), wrapped, context)
        except InvalidTag as fault:
            raise DataInvalid(f"the key of {context} cannot be opened with this wearable's; it was changed") from fault


def destroy(path: Path) -> None:
    """Overwrite the file of a key, if it is there, and delete it."""
    with contextlib.suppress(FileNotFoundError):
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def make_keyfile(path: Path) -> DeviceKey:
    """A new key in a file that only this user may read. Raises OutputExists."""
    _refuse_existing(path)
    key = DeviceKey(os.urandom(KEY_BYTES))
    write_json(path, {"kind": "keyfile", "key": _text(key.secret)})
    return key


def make_locked(path: Path, passphrase: str) -> tuple[DeviceKey, str]:
    """A new key that needs the passphrase, and the recovery key to print. Raises OutputExists, DataInvalid."""
    _refuse_existing(path)
    return _locked(path, DeviceKey(os.urandom(KEY_BYTES)), passphrase)


def put_passphrase(path: Path, passphrase: str) -> tuple[DeviceKey, str]:
    """The key of a file that is not locked needs the passphrase from now on; as `make_locked`. Raises Locked."""
    return _locked(path, read_keyfile(path), passphrase)


def _locked(path: Path, key: DeviceKey, passphrase: str) -> tuple[DeviceKey, str]:
    recovery = os.urandom(_RECOVERY_BYTES)
    _write_locked(path, key, passphrase, _wrap(_derive(recovery, "recovery"), key.secret, "recovery"))
    letters = base64.b32encode(recovery).decode()
    return key, "-".join(letters[first : first + 4] for first in range(0, len(letters), 4))


def check_passphrase(passphrase: str) -> None:
    """Raises DataInvalid for one that is too short."""
    if len(passphrase) < _SHORTEST_PASSPHRASE:
        raise DataInvalid(f"a passphrase needs at least {_SHORTEST_PASSPHRASE} characters")


def needs_passphrase(path: Path) -> bool:
    """Whether the key in this file is locked. Raises DataInvalid."""
    return _read(path)["kind"] == "passphrase"


def read_keyfile(path: Path) -> DeviceKey:
    """The key of a file that is not locked. Raises Locked, DataInvalid."""
    stored = _read(path)
    if stored["kind"] != "keyfile":
        raise Locked(f"{path} is locked; unlock it with its passphrase or its recovery key")
    return DeviceKey(_bytes(stored["key"]))


def unlock(path: Path, words: str) -> DeviceKey:
    """The key of a locked file, by its passphrase or its recovery key. Raises Locked, DataInvalid."""
    stored = _read(path)
    letters = words.upper().replace("-", "").replace(" ", "")
    try:
        if len(letters) == _RECOVERY_BYTES * 8 // 5 and not set(letters) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):
            wrapping = _derive(base64.b32decode(letters), "recovery")
            return DeviceKey(_unwrap(wrapping, _bytes(stored["by_recovery"]), "recovery"))
    except InvalidTag:
        pass  # it may be a passphrase that looks like one
    try:
        wrapping = _stretched(words, _bytes(stored["salt"]))
        return DeviceKey(_unwrap(wrapping, _bytes(stored["by_passphrase"]), "passphrase"))
    except InvalidTag as fault:
        raise Locked("neither passphrase nor recovery key fits; nothing was changed") from fault


def change_passphrase(path: Path, words: str, passphrase: str) -> None:
    """Another passphrase; ``words``: that of today, or the recovery key, which stays. Raises Locked, DataInvalid."""
    key = unlock(path, words)
    _write_locked(path, key, passphrase, _bytes(_read(path)["by_recovery"]))


def _write_locked(path: Path, key: DeviceKey, passphrase: str, by_recovery: bytes) -> None:
    check_passphrase(passphrase)
    salt = os.urandom(_SALT_BYTES)
    by_passphrase = _wrap(_stretched(passphrase, salt), key.secret, "passphrase")
    stored = {"kind": "passphrase", "salt": _text(salt), "by_passphrase": _text(by_passphrase)}
    write_json(path, stored | {"by_recovery": _text(by_recovery)})


def _read(path: Path) -> dict[str, str]:
    try:
        stored = read_json(path)
        names = {"keyfile": {"kind", "key"}, "passphrase": {"kind", "salt", "by_passphrase", "by_recovery"}}
        if stored.keys() != names[stored["kind"]]:
            raise KeyError
        for name in stored.keys() - {"kind"}:
            _bytes(stored[name])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataInvalid(f"the device key {path} cannot be read; restore it, or start with a new wearer") from fault
    return stored


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise OutputExists(f"{path} holds a key already; without it nothing that it sealed can be read")


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt, KEY_BYTES, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P).derive(passphrase.encode())


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, purpose.encode()).derive(secret)


def _wrap(wrapping: bytes, secret: bytes, context: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(wrapping).encrypt(nonce, secret, context.encode())


def _unwrap(wrapping: bytes, wrapped: bytes, context: str) -> bytes:
    return AESGCM(wrapping).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context.encode())


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
