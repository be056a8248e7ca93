"""Where a run comes from: what `run.json` says, so that somebody else can do it again."""

from __future__ import annotations

import hashlib
import json
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
from mcoe_model.model_file import file_sha256
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
        "uncommitted_sha256": uncommitted_sha256(_REPOSITORY),
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


def uncommitted_sha256(repository: Path) -> str | None:
    """Names what differs from the commit, files that git does not know yet among it; None where nothing does."""
    changed = _git("diff", "HEAD", "--binary", repository=repository)
    new = (_git("ls-files", "--others", "--exclude-standard", "-z", repository=repository) or "").split("\0")
    found = {name: file_sha256(repository / name) for name in sorted(new) if name and (repository / name).is_file()}
    if not (changed or found):
        return None
    return hashlib.sha256(json.dumps([changed, found]).encode()).hexdigest()


def _git(*arguments: str, repository: Path = _REPOSITORY) -> str | None:
    """Git's answer for a repository, or None outside one."""
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="surrogateescape").strip()
