"""When the wearable may learn and check in: with enough power, and not too hot.

A sensor that this machine does not have is unknown, which is said once and allowed (Linux's sysfs: power_supply,
thermal).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.said import Said

SYSTEM = Path("/sys/class")
ROUTES = Path("/proc/net/route")
#: What the machine is connected by; ``other`` is what nobody pays by the byte, as far as it can be seen.
Network = Literal["mobile", "other"]
#: Per cent of a battery's charge above which it may do without mains.
LEAST_CHARGE = 40
#: Degrees Celsius from which on it may not.
HOT = 75.0
#: What names a cooling device of Linux that cools a processor by making it slower.
_SLOWS = ("cpufreq", "devfreq", "processor")
#: Kinds of a network device (``DEVTYPE``) that end at a mobile phone's contract, and how such devices are named.
_MOBILE_KINDS, _MOBILE_NAMES = ("wwan", "bluetooth"), ("ppp", "wwan", "rmnet", "bnep")
#: Flag of a route that is up.
_UP = 1


#: Nothing else is done while one runs.
RECORDING = Said("gate.recording", "a recording runs")


@dataclass(frozen=True)
class Sensors:
    """What the machine tells; None: unknown. ``charge`` in per cent, ``celsius`` that of its hottest part.

    ``throttled``: its processors run slower than they could, to become cooler.
    """

    mains: bool | None
    charge: int | None
    celsius: float | None
    throttled: bool | None

    def closed(self) -> tuple[Said, ...]:
        """Which gates are closed; none: it may learn, and check in."""
        found = []
        if not self.mains and self.charge is not None and self.charge <= LEAST_CHARGE:
            says = "battery at {charge} %: waits for mains, or for more than {least} %"
            found.append(Said("gate.battery", says, charge=self.charge, least=LEAST_CHARGE))
        if self.celsius is not None and self.celsius >= HOT:
            says = "{celsius} degrees: waits for less than {hot}"
            found.append(Said("gate.hot", says, celsius=round(self.celsius), hot=round(HOT)))
        return tuple(found)

    def unknown(self) -> tuple[str, ...]:
        """What is not known, and so stops nothing."""
        power = ("power",) if self.mains is None and self.charge is None else ()
        return (*power, *(("temperature",) if self.celsius is None else ()))


def read_sensors(system: Path = SYSTEM) -> Sensors:
    """What ``system`` tells now."""
    mains: list[bool] = []
    charges: list[int] = []
    for supply in sorted(system.glob("power_supply/*")):
        with suppress(OSError, ValueError):  # a supply may be pulled out while it is read
            kind = (supply / "type").read_text().strip()
            if kind == "Battery":
                charges.append(int((supply / "capacity").read_text()))
            elif kind in ("Mains", "USB"):
                mains.append((supply / "online").read_text().strip() == "1")
    degrees: list[float] = []
    for zone in sorted(system.glob("thermal/thermal_zone*/temp")):
        with suppress(OSError, ValueError):
            degrees.append(int(zone.read_text()) / 1000)
    slowed: list[bool] = []
    for cooling in sorted(system.glob("thermal/cooling_device*")):
        with suppress(OSError, ValueError):
            if any(word in (cooling / "type").read_text().lower() for word in _SLOWS):  # the others are fans
                slowed.append(int((cooling / "cur_state").read_text()) > 0)
    throttled = any(slowed) if slowed else None
    return Sensors(any(mains) if mains else None, min(charges, default=None), max(degrees, default=None), throttled)


def read_network(system: Path = SYSTEM, routes: Path = ROUTES) -> Network | None:
    """What the machine's default route goes over; None where that cannot be seen.

    A phone's hotspot looks as any other Wi-Fi does.
    """
    found: list[tuple[int, str]] = []
    with suppress(OSError, ValueError):
        for line in routes.read_text().splitlines()[1:]:
            device, destination, _, flags, _, _, metric, mask, *_ = line.split()
            if destination == mask == "00000000" and int(flags, 16) & _UP:
                found.append((int(metric), device))
    if not found:
        return None
    device = min(found)[1]
    try:
        told = (system / "net" / device / "uevent").read_text().splitlines()
    except OSError:
        return None
    kinds = [line.removeprefix("DEVTYPE=") for line in told if line.startswith("DEVTYPE=")]
    return "mobile" if set(kinds) & set(_MOBILE_KINDS) or device.startswith(_MOBILE_NAMES) else "other"
