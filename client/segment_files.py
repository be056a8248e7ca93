"""Segments of a recording while they are plain files in memory: their names, and what is said of them. No I/O.

The open segment is called `SESSION-000003.partial.aedat4` (dv-processing reads and writes names with that ending only),
a finished one `SESSION-000003.aedat4`. What a process that died has left is found by these names.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcoe_model.errors import SettingsError

#: How long a segment is, in the camera's time: what a dying process can lose at most.
SEGMENT_US = 10_000_000

_SESSION = re.compile(r"[0-9A-Za-z_]{1,64}")
_PARTIAL, _FINISHED = ".partial.aedat4", ".aedat4"


@dataclass(frozen=True)
class PlainSegment:
    """A finished segment: where it is, what it covers in the camera's microseconds, and how much of each is in it.

    ``last``: it was finished because the recording stopped. One that stops just after a segment was finished has none.
    """

    session: str
    number: int
    path: Path
    starts_us: int
    ends_us: int
    events: int
    frames: int
    imu: int
    triggers: int
    last: bool = False

    def to_record(self) -> dict[str, Any]:
        """As it is said in JSON."""
        return asdict(self) | {"path": str(self.path)}


def finished_path(folder: Path, session: str, number: int) -> Path:
    """Where a finished segment is."""
    return folder / f"{session}-{number:06d}{_FINISHED}"


def partial_path(folder: Path, session: str, number: int) -> Path:
    """Where the open segment is."""
    return folder / f"{session}-{number:06d}{_PARTIAL}"


def left_over(folder: Path) -> list[tuple[str, int, bool, Path]]:
    """Every segment's file in a folder, in order: session, number, whether it was finished, path."""
    found = []
    for path in folder.glob(f"*{_FINISHED}"):
        finished = not path.name.endswith(_PARTIAL)
        session, _, number = path.name.removesuffix(_FINISHED if finished else _PARTIAL).rpartition("-")
        if _SESSION.fullmatch(session) and number.isdigit():
            found.append((session, int(number), finished, path))
    return sorted(found)


def checked_session(session: object) -> str:
    """A session's id, fit to be part of a file's name. Raises SettingsError."""
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise SettingsError(["a session's id is up to 64 letters, digits and underscores"])
    return session
