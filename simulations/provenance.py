"""Where a run comes from: what `run.json` says, so that somebody else can do it again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcoe_model.data.cache import Clips
from simulations.own import locate_all
from simulations.parts import Parts, subject_overlap
from simulations.settings import SimulationSettings
from simulations.tuning import declared

_PACKAGES = ("mcoe", "torch", "numpy", "flwr", "pillow", "safetensors", "sqlalchemy")
_REPOSITORY = Path(__file__).parent.parent


def new_run(settings: SimulationSettings) -> dict[str, Any]:
    """The record of a simulation that is about to start."""
    own = {kind: asdict(code) for kind, code in locate_all(settings).items()}
    return {"settings": asdict(settings), "own": own, **origin(), "tuning": declared(settings)}


def origin() -> dict[str, Any]:
    """What the record of any run says of how, when and where it was started."""
    return {
        "command": sys.argv,
        "started": utc_text(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "machine": {"system": platform.platform(), "processor": platform.processor(), "cpus": os.cpu_count()},
        "threads_per_worker": 1,
        "device": "cpu",
    }


def utc_text() -> str:
    """The time as a record says it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_data(settings: SimulationSettings, root: Path, clips: Clips, parts: Parts) -> dict[str, Any]:
    """What the record says of the data, once they are there."""
    overlap = subject_overlap(settings, clips.records)
    return {
        "data": "synthetic" if settings.synthetic else str(root.resolve()),
        "data_sha256": clips.sha256,
        "clips": str(clips.path.resolve()),
        "skipped": [skipped._asdict() for skipped in clips.skipped],
        "parts_sha256": parts.sha256,
        "subject_overlap": asdict(overlap) if overlap else None,
    }


def _git(*arguments: str) -> str | None:
    """Git's answer for this repository, or None outside one."""
    try:
        done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
