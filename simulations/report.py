"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path


def write_report(folder: Path) -> Path:
    """Write report.html; returns its path."""
    return folder / "report.html"
