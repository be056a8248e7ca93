"""Whether the machine holds out: disk, spool, databases, certificates, and what the doctor finds."""

from __future__ import annotations

import datetime
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from mcoe_model.errors import McoeError
from server.certificates import days_left, read_certificate
from server.dashboard.queries import Queries
from server.doctor import Finding, Premises, examine
from server.paths import ServerPaths
from server.registry import utc_now
from server.settings import ServerSettings
from server.superlink.database import database_bytes

#: Seconds between two examinations: they read every model file, so that they take longer than a page may.
EXAMINE_EVERY_S = 600
#: A certificate with fewer days left is named.
SOON_DAYS = 30


@dataclass(frozen=True)
class Certificate:
    """A certificate's file and the days until it expires, None when it cannot be read."""

    name: str
    days: float | None


@dataclass(frozen=True)
class Health:
    """Sizes in bytes. ``disk_floor``: no round opens with less free disk."""

    disk_free: int
    disk_total: int
    disk_floor: int
    spool_bytes: int
    models_bytes: int
    registry_bytes: int
    flower_bytes: int
    certificates: tuple[Certificate, ...]


def health(queries: Queries, paths: ServerPaths, settings: ServerSettings) -> Health:
    """The server's health now."""
    disk = shutil.disk_usage(paths.folder)
    now = utc_now()
    return Health(
        disk.free,
        disk.total,
        settings.disk_floor_mb << 20,
        _bytes_under(paths.spool),
        _bytes_under(paths.models),
        queries.database_bytes(),
        database_bytes(paths.superlink),
        tuple(_certificate(paths.certificates / name, now) for name in ("ca.crt", "server.crt")),
    )


@dataclass(frozen=True)
class Examination:
    """What the doctor found, and when."""

    time: datetime.datetime
    findings: tuple[Finding, ...]


class Doctor:
    """Examines the server's data in a thread of its own, when asked and the last examination is old."""

    def __init__(self, engine: Engine, paths: ServerPaths, running: Sequence[ServerSettings]) -> None:
        self._engine = engine
        self._paths = paths
        self._spools = {settings.experiment: paths.spool_of(settings.experiment) for settings in running}
        self._floor = running[0].disk_floor_mb << 20
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._last: Examination | None = None

    def latest(self) -> Examination | None:
        """The last examination, None before the first has ended. Never waits."""
        with self._lock:
            old = self._last is None or (utc_now() - self._last.time).total_seconds() > EXAMINE_EVERY_S
            if old and (self._running is None or not self._running.is_alive()):
                self._running = threading.Thread(target=self._examine, name="doctor", daemon=True)
                self._running.start()
            return self._last

    def _examine(self) -> None:
        now = utc_now()
        premises = Premises(self._engine, self._paths.models, self._spools, now, self._floor)
        try:
            found = tuple(examine(premises))
        except Exception as fault:  # a data folder in any state must not take the page down
            found = (Finding("error", f"the examination ended early: {fault}", "run `mcoe-server doctor`"),)
        with self._lock:
            self._last = Examination(now, found)


def _certificate(path: Path, now: datetime.datetime) -> Certificate:
    try:
        return Certificate(path.name, days_left(read_certificate(path), now))
    except McoeError:
        return Certificate(path.name, None)


def _bytes_under(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*"))


def _size(path: Path) -> int:
    """The size of a file, 0 for a folder and for a file that went away meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
