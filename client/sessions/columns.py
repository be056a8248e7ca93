"""The column type for what a wearer felt and what a model took it for: encrypted in the file, plain in Python.

AES-256-GCM under `DeviceKey.derive("columns")`, each value under a random nonce and bound to its column. Values are
JSON, filled up to a multiple of 64 bytes, so that the length of a label does not tell which one it is.
"""

from __future__ import annotations

import json
import os
from typing import Any
from weakref import WeakKeyDictionary

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Dialect, Engine, LargeBinary
from sqlalchemy.types import TypeDecorator

from client.keys import DeviceKey
from mcoe_model.errors import DataInvalid, Locked

_NONCE_BYTES, _FILLED_BYTES = 12, 64
#: An engine's dialect is what a column type sees of it.
_CIPHERS: WeakKeyDictionary[Dialect, AESGCM] = WeakKeyDictionary()


def unlock_columns(engine: Engine, key: DeviceKey) -> None:
    """From now on this engine reads and writes encrypted columns."""
    _CIPHERS[engine.dialect] = AESGCM(key.derive("columns"))


def lock_columns(engine: Engine) -> None:
    """From now on this engine can do so no longer."""
    _CIPHERS.pop(engine.dialect, None)


class Encrypted(TypeDecorator[Any]):
    """A JSON value, encrypted. ``column`` is its column's name, so that a value cannot stand in another one.

    Reading and writing raise Locked without the key, reading DataInvalid for bytes that were changed.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        if value is None:
            return None
        text = json.dumps(value, allow_nan=False).encode()
        filled = text.ljust(-(-len(text) // _FILLED_BYTES) * _FILLED_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + _cipher(dialect).encrypt(nonce, filled, self.column.encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        try:
            plain = _cipher(dialect).decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], self.column.encode())
        except (InvalidTag, ValueError) as fault:
            raise DataInvalid(f"a value of {self.column} was changed, or is of another wearable's key") from fault
        return json.loads(plain)


def _cipher(dialect: Dialect) -> AESGCM:
    cipher = _CIPHERS.get(dialect)
    if cipher is None:
        raise Locked("the wearable is locked; unlock it with its passphrase or its recovery key")
    return cipher
