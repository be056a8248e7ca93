"""Engines that only attacks are measured with: a server without a norm bound, and one with clean clips of its own.

`undefended` shows what nothing stops. `fltrust` has the product's trainer (`server/trusted.py`) and, for its clean
clips, those of the run's validation subjects: people who are neither a client nor tested, and whom the base never saw.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mcoe_model.data.see import MODALITIES
from mcoe_model.files import read_json, write_json
from server.aggregation.fltrust import FLTrust
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.round_settings import RoundSettings
from server.rounds import RoundEngine
from server.trusted import TrustedTrainer
from simulations.console import Display
from simulations.data import data_root
from simulations.scene import Scene, cache_folder, open_scene


class Undefended(RoundEngine):
    """No update is too long."""

    def _norm_bound(self, base_sha256: str) -> None:
        return None


class Trusting(RoundEngine):
    """FLTrust, whatever rule the settings have: a simulation's cannot name it."""

    def __init__(self, registry: Registry, artifacts: Artifacts, spool: Path, settings: RoundSettings) -> None:
        trusted = trusted_clips(open_scene(spool.parent))
        settings = replace(settings, rule=FLTrust.name, trusted_set=str(trusted))
        super().__init__(registry, artifacts, spool, settings, trainer=TrustedTrainer(artifacts, cache_folder()))


def trusted_clips(scene: Scene) -> Path:
    """A folder in SEE's layout with the clips of the validation part alone, made in the run's. Its data are SEE's."""
    root, folder = data_root(scene.settings, Display(Console(quiet=True))).resolve(), scene.paths.folder / "trusted"
    annotation = read_json(root / "emotion.json")
    kept = {name: annotation["database"][name] for name in scene.parts.validation}
    write_json(folder / "emotion.json", annotation | {"database": kept})
    for modality in MODALITIES:
        (folder / modality).symlink_to(root / modality)
    return folder
