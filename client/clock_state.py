"""Whether something keeps this device's clock right, as Linux's kernel says it.

A module of its own, since the fleet's process tells it and has no store: SQLAlchemy would cost it half a second of
processor time at each start.
"""

from __future__ import annotations

import ctypes
from typing import Literal

#: Unknown where the kernel does not say it.
ClockState = Literal["synchronised", "unsynchronised", "unknown"]

_TIMEX_BYTES, _TIME_ERROR = 256, 5


def clock_state() -> ClockState:
    """What the kernel knows of its clock (adjtimex(2), which also chrony and systemd-timesyncd report to)."""
    asked = ctypes.create_string_buffer(_TIMEX_BYTES)  # all zero: change nothing
    try:
        answer = ctypes.CDLL(None).adjtimex(asked)
    except (OSError, AttributeError):
        return "unknown"
    if answer < 0:
        return "unknown"
    return "unsynchronised" if answer == _TIME_ERROR else "synchronised"
