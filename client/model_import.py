"""A model from a file becomes the one that recognises here, by the rule for every newer model (`client.serving`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.comparison import Comparison
from client.enrolment import ClientPaths
from client.running import Running
from client.serving import served_model, try_beside
from mcoe_model.errors import DataMissing
from mcoe_model.files import write_bytes
from mcoe_model.model_file import file_sha256


@dataclass(frozen=True)
class Imported:
    """``runs``: it recognises from now on. ``trial``: what was found beside the one that ran, if any."""

    sha256: str
    preset: str
    runs: bool
    trial: Comparison | None


def import_model(paths: ClientPaths, file: Path) -> Imported:
    """Copy a model to the wearer's, and let it run unless it is worse.

    Raises DataMissing, ModelInvalid for one that cannot recognise here, DiskFull, McoeError when the trial fails.
    """
    from client.live import load_live_model  # torch, which the main process does not load for its commands

    if not file.is_file():
        raise DataMissing(f"there is no model file {file}")
    preset = load_live_model(file).generation.preset
    sha256, running, served = file_sha256(file), Running(paths.running), served_model(paths, unlocked=False)
    copy = paths.models / f"{sha256}.safetensors"
    write_bytes(copy, file.read_bytes())
    found = try_beside(paths, copy, served) if served is not None and served != copy else None
    if found is not None and found.verdict == "worse":
        running.refuse(sha256, "worse", found)
        return Imported(sha256, preset, False, found)
    running.adopt(sha256, found)
    return Imported(sha256, preset, True, found)
