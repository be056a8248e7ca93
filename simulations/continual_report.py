"""The report of a comparison of methods against forgetting: one HTML file that stands alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from mcoe_model.files import read_json, write_bytes
from simulations import plots
from simulations.report import page


def write_report(folder: Path) -> Path:
    """Write report.html beside the summary.json of a comparison; returns its path. Equal folders give equal bytes."""
    summary, run = read_json(folder / "summary.json"), read_json(folder / "run.json")
    arms = summary["arms"]
    lines = {label: [100 * share for share in found["forgetting_over_time"]] for label, found in arms.items()}
    said = ", ".join(f"{label} {values[-1]:.1f} points" for label, values in lines.items())
    content: dict[str, Any] = {
        "summary": summary,
        "run": run,
        "arms": arms,
        "synthetic": summary["data"] == "synthetic",
        "command": shlex.join(["python", *run["command"]]),
        "best": _best(summary),
        "plot": plots.stages_plot("forgetting", f"Forgetting at the end: {said}.", lines, "forgetting, points"),
    }
    path = folder / "report.html"
    write_bytes(path, page("continual.html.j2", content))
    return path


def _best(summary: dict[str, Any]) -> str | None:
    """The method with a limit of memory that takes away most of naive fine-tuning's forgetting."""
    limited = {label: found for label, found in summary["arms"].items() if found["limit_bytes"]}
    if not (limited and summary["informative"]):
        return None
    best: str = max(limited, key=lambda label: limited[label]["removed"])
    return best
