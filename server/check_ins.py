"""What a client hears when it checks in: whether its program is new enough, and when to come again. Pure functions."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from mcoe_model.errors import SettingsError
from mcoe_model.protocol import MAX_CHECK_IN_S, Standing

_VERSION = re.compile(r"\d+(\.\d+)*")
#: A check-in comes so much earlier or later than its turn, as a share of the time between two.
JITTER = 0.05
#: A client that was heard within so many times the time between two check-ins is still there: its turn is never later.
STILL_THERE = 1.5


@dataclass(frozen=True)
class CheckIns:
    """What the operator wants of check-ins.

    - ``least``: a client of an older version is too old to train; empty: any will do.
    - ``advised``: one of an older version is advised to be updated; empty: none is.
    - ``every_s``: seconds between two check-ins of a client; 0: it stays connected.
    """

    least: str = ""
    advised: str = ""
    every_s: float = 0.0

    def __post_init__(self) -> None:
        found = []
        for name, version in (("client_version_least", self.least), ("client_version_advised", self.advised)):
            if version and not _VERSION.fullmatch(version):
                found.append(f"{name} must be a version such as 1.2.0, not {version!r}")
        most = MAX_CHECK_IN_S / (2 * STILL_THERE)
        if not 0 <= self.every_s <= most:
            found.append(f"check_in_s must be between 0 and {most:.0f}, not {self.every_s}")
        if found:
            raise SettingsError(found)

    def standing(self, client_version: str) -> Standing:
        """Whether a client of this version may train. One whose version cannot be read is older than any."""
        version = _numbers(client_version)
        if self.least and version < _numbers(self.least):
            return "too-old"
        return "update-advised" if self.advised and version < _numbers(self.advised) else "ok"

    def next_s(self, client_id: str, now: float, draw: float) -> float:
        """Seconds from ``now`` (Unix time) to a client's next check-in; 0 for one that stays connected.

        Every client has its turn within ``every_s``, by the hash of its id, so that a fleet that was switched on at
        once does not come at once; ``draw``, uniform in [0, 1), moves it a little. From half to one and a half of
        ``every_s``: once a client has come in its turn, always about ``every_s``.
        """
        if not self.every_s:
            return 0.0
        turn = int.from_bytes(hashlib.sha256(client_id.encode()).digest()[:8], "big") / 2**64
        since = (now / self.every_s - turn) % 1.0
        turns = 1.0 - since if since <= 0.5 else 2.0 - since
        return self.every_s * (turns + JITTER * (2.0 * draw - 1.0))


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without the zeros at its end."""
    found = _VERSION.match(version)
    numbers = [int(part[:9]) for part in found.group().split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
