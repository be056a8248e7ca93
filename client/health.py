"""What the fleet's process tells the server of the wearable's health.

It sees the disk, the sensors and the clock itself. What only the main process knows, which alone may use the store and
has the camera, that one writes down as a *tally*: numbers in a small file. Where no main process runs they are unknown.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.clock_state import clock_state
from client.enrolment import ClientPaths
from client.gates import SYSTEM, read_sensors
from mcoe_model.files import read_json, write_json
from mcoe_model.health import MOST, UNKNOWN, Health, known

if TYPE_CHECKING:
    from client.sessions import Store  # brings SQLAlchemy, which the fleet's process does without

_DAY_S = 86_400


@dataclass(frozen=True)
class Tally:
    """What the main process said on a ``day`` (since 1970); the rest is as in `Health`."""

    day: int
    camera_seen: int = UNKNOWN
    minutes: int = UNKNOWN
    labelled: int = UNKNOWN
    skipped: int = UNKNOWN
    expired: int = UNKNOWN
    oldest_day: int = UNKNOWN
    error: int = UNKNOWN


def keep_tally(paths: ClientPaths, camera_seen: bool | None, error: int, store: Store) -> None:
    """Write the tally down, if it is another than before. Raises Locked, DiskFull."""
    counts = store.progress()
    oldest = UNKNOWN if counts.oldest_day is None else counts.oldest_day
    said = Tally(_today(), known(camera_seen), **asdict(counts) | {"oldest_day": oldest, "error": error})
    if said != _read(paths.health):
        write_json(paths.health, asdict(said))


def read_health(paths: ClientPaths, system: Path = SYSTEM) -> Health:
    """How the wearable is now. What cannot be read is unknown."""
    sensors, clock, today = read_sensors(system), clock_state(), _today()
    tally = _read(paths.health)
    if tally is None or not today - 1 <= tally.day <= today:  # nobody has kept it for long
        tally = Tally(today)
    free = UNKNOWN
    with suppress(OSError):
        free = int(shutil.disk_usage(paths.folder).free // 1e9)
    numbers = {name: value for name, value in asdict(tally).items() if name != "day"} | {
        "free_gb": free,
        "battery_percent": UNKNOWN if sensors.charge is None else sensors.charge,
        "celsius": UNKNOWN if sensors.celsius is None else max(0, round(sensors.celsius)),
        "throttled": known(sensors.throttled),
        "clock_set": known(None if clock == "unknown" else clock == "synchronised"),
    }
    return Health(**{name: min(value, MOST[name]) for name, value in numbers.items()})


def _read(file: Path) -> Tally | None:
    """None for a file that is not there, or that another version of this program wrote."""
    try:
        said = read_json(file)
        return Tally(**{name: int(value) for name, value in said.items()})
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _today() -> int:
    return int(time.time() // _DAY_S)
