"""How long work tells what it has done: a callable, so that nothing here depends on a terminal."""

from __future__ import annotations

from collections.abc import Callable

#: Called as ``progress(done, total, note)``; ``note`` is a few words for the line, or empty.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """The progress of work that nobody watches."""
