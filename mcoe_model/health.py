"""How a wearable is, as its check-in says it beside who it is: numbers and codes, and no time finer than a day.

It is a record of its own in the check-in's message. So a server that knows no such record, or other keys, takes the
check-in all the same, and one that gets none knows nothing of the wearable's health.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mcoe_model import __version__
from mcoe_model.protocol import Plain, ProtocolError, read_fields

#: What is not known. No number of a health is negative otherwise.
UNKNOWN = -1
#: The largest value of each number; the smallest is `UNKNOWN`.
MOST = {
    "free_gb": 1_000_000,
    "battery_percent": 100,
    "celsius": 200,
    "throttled": 1,
    "camera_seen": 1,
    "clock_set": 1,
    "minutes": 100_000_000,
    "labelled": 1_000_000,
    "skipped": 1_000_000,
    "expired": 1_000_000,
    "oldest_day": 1_000_000,
    "error": 255,
}
_VERSION = re.compile("[0-9][0-9A-Za-z.+-]{0,31}")


@dataclass(frozen=True)
class Health:
    """One wearable, once. Every number is `UNKNOWN` where it is not known.

    ``version`` is that of its program. ``free_gb`` (1e9 bytes) is free on its disk; ``celsius`` is its hottest part, 0
    below freezing. ``throttled``, ``camera_seen`` and ``clock_set`` are 0, no, or 1, yes. ``minutes`` are the
    recordings that it still has. Of their spans ``labelled`` and ``skipped`` count what the wearer said, whatever it
    was, ``expired`` the questions that nobody answered in time. ``oldest_day``, in days since 1970, is when the oldest
    recording was made that is not learned. ``error`` is the exit code of the child process that failed last, learning
    among them, 0 for none, 128 and the signal's number for one that a signal ended.
    """

    version: str = __version__
    free_gb: int = UNKNOWN
    battery_percent: int = UNKNOWN
    celsius: int = UNKNOWN
    throttled: int = UNKNOWN
    camera_seen: int = UNKNOWN
    clock_set: int = UNKNOWN
    minutes: int = UNKNOWN
    labelled: int = UNKNOWN
    skipped: int = UNKNOWN
    expired: int = UNKNOWN
    oldest_day: int = UNKNOWN
    error: int = UNKNOWN

    def to_record(self) -> dict[str, Plain]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Health:
        """Raises ProtocolError for other keys, types or numbers than these."""
        health = read_fields(Health, record)
        if not _VERSION.fullmatch(health.version):
            raise ProtocolError("a version has up to 32 digits, letters and .+- and begins with a digit")
        for name, most in MOST.items():
            if not UNKNOWN <= getattr(health, name) <= most:
                raise ProtocolError(f"{name} cannot be {getattr(health, name)}")
        return health


def known(answer: bool | None) -> int:
    """A yes or no as a health says it."""
    return UNKNOWN if answer is None else int(answer)
