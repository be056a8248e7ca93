"""Sealed files: whatever a wearer's data become on a disk, they are encrypted, and no part can be changed unnoticed.

AES-256-GCM over pieces of 64 KiB, each under a nonce of its own that holds its number and whether it is the last, as in
Hoang et al. 2015, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", section 7 (STREAM,
https://eprint.iacr.org/2015/189): pieces cannot be left out, repeated, put in another order or cut off. What a file is,
its context, is authenticated with every piece, so that one file cannot stand for another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.files import atomic_write

KEY_BYTES = 32
_MAGIC = b"MCOE-SEALED-1\n"
_PREFIX_BYTES, _TAG_BYTES = 7, 16
_PIECE_BYTES = 1 << 16


def write_sealed(path: Path, key: bytes, context: str, content: Iterable[bytes], head: bytes = b"") -> None:
    """Write ``content``, in whatever portions it comes, atomically under ``key`` (32 bytes). Raises DiskFull.

    ``head`` stands before what is sealed, as it is.
    """
    prefix = os.urandom(_PREFIX_BYTES)
    cipher, bound = AESGCM(key), _bound(context)
    with atomic_write(path) as file:
        file.write(head + _MAGIC + prefix)
        for number, (piece, last) in enumerate(_pieces(content)):
            file.write(cipher.encrypt(_nonce(prefix, number, last), piece, bound))


def read_sealed(path: Path, key: bytes, context: str, head_bytes: int = 0) -> Iterator[bytes]:
    """What was written, piece by piece; each one is as it was when it is yielded, the whole only at the end.

    ``head_bytes``: how much stands before what is sealed.
    Raises DataMissing, DataInvalid for a file that was changed or cut, or that is of another key or context.
    """
    cipher, bound = AESGCM(key), _bound(context)
    try:
        with path.open("rb") as file:
            file.seek(head_bytes)
            if file.read(len(_MAGIC)) != _MAGIC or len(prefix := file.read(_PREFIX_BYTES)) != _PREFIX_BYTES:
                raise _broken(path)
            for number, (piece, last) in enumerate(_pieces(_read(file), _PIECE_BYTES + _TAG_BYTES)):
                yield cipher.decrypt(_nonce(prefix, number, last), piece, bound)
    except FileNotFoundError as fault:
        raise DataMissing(f"there is no sealed file {path}") from fault
    except InvalidTag as fault:
        raise _broken(path) from fault


def _pieces(content: Iterable[bytes], size: int = _PIECE_BYTES) -> Iterator[tuple[bytes, bool]]:
    """The content in pieces of one size, the last of which is shorter or, for no content, empty; and which is last."""
    held = bytearray()
    for portion in content:
        held += portion
        while len(held) > size:
            yield bytes(held[:size]), False
            del held[:size]
    yield bytes(held), True


def _read(file: BinaryIO) -> Iterator[bytes]:
    while portion := file.read(_PIECE_BYTES):
        yield portion


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    """12 bytes: random ones of the file, the piece's number, and whether it is the last."""
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _bound(context: str) -> bytes:
    return _MAGIC + context.encode()


def _broken(path: Path) -> DataInvalid:
    return DataInvalid(f"{path} was changed or cut off, or is sealed with another key; nothing of it is used")
