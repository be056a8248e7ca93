"""When something was: UTC, the monotonic clock, the zone, and whether the clock can be believed.

Sessions, readings of clocks, markers, consents, labels and lessons are kept with all four, questions with UTC alone.

A wearable without a battery-backed clock may wake in 1970 and be put right later; the monotonic clock does not jump.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass

from client.clock_state import ClockState, clock_state

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class Moment:
    """``utc_us``: microseconds since 1970; ``monotonic_ns``: of this boot; ``zone``: the offset from UTC, "+01:00"."""

    utc_us: int
    monotonic_ns: int
    zone: str
    clock_state: ClockState

    @property
    def day(self) -> int:
        """Days since 1970 (UTC); 0 where the clock is known to be wrong."""
        return self.utc_us // DAY_US if believed(self.clock_state) else 0

    @property
    def local(self) -> datetime.datetime:
        """The time on the wearer's wall."""
        return datetime.datetime.fromtimestamp(self.utc_us / SECOND_US, zone_of(self.zone))


def now() -> Moment:
    """The time, as this device knows it."""
    offset = datetime.datetime.now().astimezone().strftime("%z")
    zone = f"{offset[:3]}:{offset[3:5]}"
    return Moment(time.time_ns() // 1000, time.monotonic_ns(), zone, clock_state())


def believed(clock_state: str) -> bool:
    """Whether a time may be taken for right; not what a clock said that nothing kept right, also if it is right now."""
    return clock_state in ("synchronised", "unknown")


def zone_of(offset: str) -> datetime.timezone:
    """The zone of an offset such as "+01:00"."""
    return datetime.timezone(datetime.datetime.strptime(offset, "%z").utcoffset() or datetime.timedelta())
