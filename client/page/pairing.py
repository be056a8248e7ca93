"""Which phones may use the page: whoever had the pairing code that the device shows, once.

A code is good for one phone and for five tries; a new one comes from the device itself, with ``mcoe-client page``.
A paired phone keeps a random token in a cookie, of which the device keeps the hash. The page's process and the command
work on one file, one after the other.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from client.page.certificate import ALPHABET
from mcoe_model.errors import DataInvalid, McoeError
from mcoe_model.files import read_json, write_json

TRIES = 5
#: Phones that can be paired at a time; a further one takes the place of the first.
MOST_PHONES = 5
_CODE_LETTERS = 8


class PairingRefused(McoeError):
    """The code is not the device's, was used already, or was tried too often."""


@dataclass(frozen=True)
class _Paired:
    """``code`` None: none is waiting. ``phones``: hashes of their tokens, the oldest first."""

    code: str | None = None
    tries_left: int = 0
    phones: tuple[str, ...] = ()


class Pairing:
    """The pairings that are kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "pairing.json"

    def code(self) -> str:
        """The code that waits for a phone, such as ``abcd-2345``; a new one when there is none."""
        with self._changing() as paired:
            if paired.code is not None:
                return paired.code
            letters = "".join(secrets.choice(ALPHABET) for _ in range(_CODE_LETTERS))
            code = f"{letters[:4]}-{letters[4:]}"
            self._write(_Paired(code, TRIES, paired.phones))
            return code

    def pair(self, shown: str) -> str:
        """A token for whoever shows the waiting code, which is then used up. Raises PairingRefused."""
        with self._changing() as paired:
            if paired.code is None:
                raise PairingRefused("no pairing code waits; `mcoe-client page` on the wearable makes one")
            if not hmac.compare_digest(_letters(shown).encode(), _letters(paired.code).encode()):
                left = paired.tries_left - 1
                self._write(_Paired(paired.code if left else None, left, paired.phones))
                if left:
                    raise PairingRefused(f"this is not the pairing code; tries left: {left}")
                raise PairingRefused("five wrong codes: make a new one with `mcoe-client page` on the wearable")
            token = secrets.token_urlsafe(32)
            self._write(_Paired(None, 0, (*paired.phones, _hash(token))[-MOST_PHONES:]))
            return token

    def knows(self, token: str | None) -> bool:
        """Whether this is a paired phone's token."""
        if token is None:
            return False
        shown = _hash(token)
        return any([hmac.compare_digest(shown, phone) for phone in self._read().phones])

    def phones(self) -> int:
        """How many phones are paired."""
        return len(self._read().phones)

    def tries_left(self) -> int:
        """How many wrong codes are still borne; 0 when no code waits."""
        return self._read().tries_left

    def unpair(self, but: str | None = None) -> None:
        """Forget every phone, and the code that waits for one: for a new wearer.

        ``but``: the token of a phone that stays, with the code that its wearer may have made, for a lost phone.
        """
        if not self._path.exists():
            return
        with self._changing() as paired:
            if but is None:
                self._write(_Paired())
            else:
                kept = tuple(phone for phone in paired.phones if phone == _hash(but))
                self._write(_Paired(paired.code, paired.tries_left, kept))

    @contextmanager
    def _changing(self) -> Iterator[_Paired]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "pairing.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _read(self) -> _Paired:
        try:
            stored = read_json(self._path)
            return _Paired(stored["code"], int(stored["tries_left"]), tuple(map(str, stored["phones"])))
        except FileNotFoundError:
            return _Paired()
        except (ValueError, KeyError, TypeError) as fault:
            raise DataInvalid(f"{self._path} cannot be read ({fault}); delete it and pair again") from fault

    def _write(self, paired: _Paired) -> None:
        write_json(self._path, asdict(paired))  # a temporary file is made with mode 0600, and keeps it


def _letters(code: str) -> str:
    return "".join(letter for letter in code.lower() if letter.isalnum())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
