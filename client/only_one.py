"""One main process on a wearable's folder at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from mcoe_model.errors import WearableRuns


def only_one(folder: Path) -> IO[str]:
    """The folder's lock, until it is closed or the process ends, however. Raises WearableRuns."""
    # Not running.lock: whoever changes which model runs (client.running) waits for that one.
    file = (folder / "wearable.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        file.close()
        raise WearableRuns(f"a wearable runs on {folder}; end it first, or name another --dir") from fault
    return file
