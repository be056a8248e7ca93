"""Where plain segments may be for the moment before they are sealed: in memory, never on a disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from client.filesystem import MOUNTS, filesystem
from mcoe_model.errors import SettingsError

SHARED_MEMORY = Path("/dev/shm")


def plain_folder(folder: Path) -> Path:
    """The folder of plain segments for the wearable in ``folder``: the same one after a restart."""
    digest = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    return SHARED_MEMORY / f"mcoe-{os.getuid()}-{digest[:12]}"


def make_plain_folder(folder: Path) -> Path:
    """Make it, for this user alone. Raises SettingsError where it would not be memory."""
    made = plain_folder(folder)
    made.mkdir(mode=0o700, exist_ok=True)
    made.chmod(0o700)
    if not is_memory(made):
        raise SettingsError([f"{SHARED_MEMORY} is no tmpfs, so that recordings would touch a disk; mount one there"])
    return made


def is_memory(place: Path, mounts: Path = MOUNTS) -> bool:
    """Whether this folder lies on a tmpfs."""
    return filesystem(place, mounts) in ("tmpfs", "ramfs")
