"""Tables as files: CSV for programs, Markdown and LaTeX for people and papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcoe_model.files import write_bytes

Rows = Sequence[dict[str, Any]]
#: How LaTeX is told the letters that mean something to it.
_LATEX = {letter: f"\\{letter}" for letter in "_%&#${}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def write_csv(path: Path, rows: Rows) -> None:
    """Write rows of equal keys as CSV; no rows give an empty file."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_for_people(path: Path, rows: Rows, caption: str = "") -> None:
    """Write rows as ``path``.md and ``path``.tex; shares in [0, 1] become percentages with one decimal.

    The caption, which says what must be known to read them, stands below.
    """
    head, cells = list(rows[0]), [[_shown(value) for value in row.values()] for row in rows]
    markdown = ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *cells]]
    markdown += ["", caption] if caption else []
    write_bytes(path.with_suffix(".md"), ("\n".join(markdown) + "\n").encode())
    lines = [" & ".join(map(_latex, line)) + r" \\" for line in [head, *cells]]
    table = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", lines[0], r"\hline", *lines[1:], r"\end{tabular}"]
    table += ["", _latex(caption)] if caption else []
    write_bytes(path.with_suffix(".tex"), ("\n".join(table) + "\n").encode())


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
