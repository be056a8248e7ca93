"""What waits for the server, by its files' names alone: updates in an outbox, clips for a round."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mcoe_model.protocol import MAX_OUTBOX


def kept_ids(folder: Path) -> tuple[str, ...]:
    """The updates in an outbox's folder, oldest first, at most as many as a check-in may list."""
    ages = []
    for path in folder.glob("*.sealed"):
        with suppress(FileNotFoundError):  # another process has just let go of it
            ages.append((path.stat().st_mtime_ns, path.stem))
    return tuple(name for _, name in sorted(ages)[-MAX_OUTBOX:])


def drop_kept(folder: Path) -> None:
    """Delete every update in an outbox's folder: none of them is wanted any more."""
    for path in folder.glob("*.sealed"):
        path.unlink(missing_ok=True)


def kept_clips(lessons: Path) -> int:
    """How many clips of a lesson book await a round."""
    return sum(1 for _ in lessons.glob("*/rounds/*.sealed"))
