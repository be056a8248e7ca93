"""When the wearable may check in with its fleet: power, temperature, network, hours, bytes, and nothing else going on.

What the machine does not tell stops nothing, which is said once.
"""

from __future__ import annotations

import datetime
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.gates import RECORDING, SYSTEM, Network, Sensors, read_network, read_sensors
from client.said import Said
from client.traffic import Traffic

_MB = 10**6
#: Seconds between two looks at gates that are closed.
_LOOK_S = 1.0

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class CheckInRules:
    """Check-ins happen within ``hours`` (minutes of the day, which may pass midnight; the same twice: at any time).

    They go over a ``mobile`` network only if that is allowed, and until so many bytes were used; 0: any number.
    ``system``: the folder in which the machine tells of its sensors and networks.
    """

    hours: tuple[int, int] = (0, 0)
    mobile: bool = False
    bytes_per_day: int = 1000 * _MB
    bytes_per_month: int = 10_000 * _MB
    system: Path = SYSTEM

    def within_hours(self, minute: int) -> bool:
        """Whether a minute of the day is one in which it may."""
        begin, end = self.hours
        return begin == end or (begin <= minute < end if begin < end else not end <= minute < begin)


class CheckInGates:
    """Looks whether all of them are open. ``recording`` is whether one runs: a check-in waits for its end."""

    def __init__(
        self,
        rules: CheckInRules,
        traffic: Traffic,
        recording: Callable[[], bool] = lambda: False,
        *,
        sensors: Callable[[], Sensors] | None = None,
        network: Callable[[], Network | None] | None = None,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> None:
        self.rules = rules
        self.traffic = traffic
        self._recording = recording
        self._sensors = sensors or partial(read_sensors, rules.system)
        self._network = network or partial(read_network, rules.system)
        self._now = now
        self._said: tuple[Said, ...] = ()
        self._looked = -math.inf

    def closed(self) -> tuple[Said, ...]:
        """Which of them are closed; none: it may check in."""
        rules, used, now = self.rules, self.traffic.used(), self._now()
        found = [RECORDING] if self._recording() else []
        found += self._sensors().closed()
        if not rules.mobile and self._network() == "mobile":
            found.append(Said("gate.mobile", "the network is a mobile one: waits for another"))
        if not rules.within_hours(now.hour * 60 + now.minute):
            begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in rules.hours)
            says = "it is {now}: waits for the time from {begin} to {end}"
            found.append(Said("gate.hours", says, now=f"{now:%H:%M}", begin=begin, end=end))
        says = "{used} of {most} MB are used: waits for "
        if 0 < rules.bytes_per_day <= used.in_day:
            day, most = round(used.in_day / _MB), round(rules.bytes_per_day / _MB)
            found.append(Said("gate.day", says + "tomorrow", used=day, most=most))
        if 0 < rules.bytes_per_month <= used.in_month:
            month, most = round(used.in_month / _MB), round(rules.bytes_per_month / _MB)
            found.append(Said("gate.month", says + "the next month", used=month, most=most))
        return tuple(found)

    def look(self) -> tuple[Said, ...]:
        """`closed`, once a second at most, and a line in the log when it is not what it was at the last look."""
        if time.monotonic() - self._looked < _LOOK_S:
            return self._said
        self._looked = time.monotonic()
        closed = self.closed()
        if closed != self._said:
            log.info("%s", f"no check-in now: {'; '.join(closed)}" if closed else "it may check in again")
            self._said = closed
        return closed

    def wait(self, stopped: threading.Event) -> bool:
        """Until all of them are open, or ``stopped``, which it returns."""
        while self.look() and not stopped.wait(_LOOK_S):
            pass
        return stopped.is_set()

    def say_unknown(self) -> None:
        """Write into the log what cannot be known, and so stops nothing."""
        unknown = [*self._sensors().unknown(), *(["kind of network"] if self._network() is None else [])]
        if unknown:
            log.info("this machine does not tell its %s: that stops no check-in", " and ".join(unknown))
