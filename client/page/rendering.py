"""Templates, and how values read on the page. Scripts put times into the phone's own zone."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from client.page.words import Words


def render(template: str, **content: Any) -> str:
    """A template with this content."""
    return _pages.get_template(f"{template}.html.j2").render(content)


def minutes(seconds: float) -> str:
    """Minutes and seconds, such as 1:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def _time(time: datetime.datetime, style: str = "time") -> Markup:
    """A ``time`` element that a script writes out in the phone's zone; until then it is in UTC."""
    shown = {"time": "%H:%M", "day": "%Y-%m-%d"}.get(style, "%Y-%m-%d %H:%M") + " UTC"
    return Markup('<time datetime="{}" data-style="{}">{}</time>').format(time.isoformat(), style, f"{time:{shown}}")


def _size(count: float, language: str) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB".replace(".", "," if language == "de" else ".")


def _data(value: Any) -> Markup:
    """A value as JSON that can stand in a ``script`` element."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


def _told(what: str, words: Words) -> str:
    """What can be said in the words' language is; the words of another machine or of the system are quoted."""
    return words.said(what) or Markup('<q lang="en">{}</q>').format(what)


def _environment() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    pages.filters |= {"data": _data, "minutes": minutes, "size": _size, "time": _time, "told": _told}
    return pages


_pages = _environment()
