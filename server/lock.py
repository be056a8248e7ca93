"""One process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from mcoe_model.errors import ServerRuns


def hold(path: Path, says: str) -> IO[str]:
    """Keep this file's lock until the file is closed, or the process ends, however. Raises ServerRuns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        file.close()
        raise ServerRuns(f"{says}; end it first") from fault
    return file


def is_held(path: Path) -> bool:
    """Whether a process has this file's lock now."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go at once; others may look at the same time
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
