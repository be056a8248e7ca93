"""Templates, and how values read on a page. Times are UTC."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server.registry import utc_now

Row = TypeVar("Row")

#: What a page says where nothing is known.
NONE = "–"
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of many; pages count from 1."""

    rows: Sequence[Row]
    number: int
    pages: int
    total: int


def page_of(rows: Sequence[Row], number: int, size: int) -> Page[Row]:
    """One page of all rows; the last one when there are fewer pages."""
    pages = max(1, -(-len(rows) // size))
    number = min(number, pages)
    return Page(rows[(number - 1) * size : number * size], number, pages, len(rows))


def render(template: str, **content: Any) -> str:
    """A template with this content."""
    return _pages.get_template(template).render(content)


def _seconds(seconds: float | None) -> str:
    """A duration by its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    largest = next(index for index, (size, _) in enumerate(_UNITS) if left >= size)
    parts = []
    for size, unit in _UNITS[largest : largest + 2]:
        if left // size:
            parts.append(f"{left // size} {unit}")
        left %= size
    return " ".join(parts)


def _ago(time: datetime.datetime | None) -> str:
    """How long ago, or in how long."""
    if time is None:
        return NONE
    seconds = (utc_now() - time).total_seconds()
    if abs(seconds) < 1:
        return "now"
    size, unit = next((size, unit) for size, unit in _UNITS if abs(seconds) >= size)
    count = f"{int(abs(seconds) // size)} {unit}"
    return f"{count} ago" if seconds > 0 else f"in {count}"


def _due(time: datetime.datetime) -> str:
    """In how long something is expected."""
    return "due" if time <= utc_now() else _ago(time)


def _stamp(time: datetime.datetime | None) -> str:
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _percent(rate: float | None) -> str:
    return NONE if rate is None else f"{100 * rate:.1f}"


def _level(share: float | None, full: float = 1.0) -> str:
    """The class of a heat map's cell, of eleven steps from 0 to ``full``."""
    return "none" if share is None else f"heat-{min(10, round(10 * share / full))}"


def _environment() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    pages.filters |= {
        "ago": _ago, "due": _due, "level": _level, "percent": _percent, "seconds": _seconds, "size": _size,
        "stamp": _stamp,
    }  # fmt: skip
    return pages


_pages = _environment()
