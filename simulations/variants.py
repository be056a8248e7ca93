"""Federated runs that differ in their settings and share all else: data, parts, base model and random streams.

A comparison is paired: whatever is drawn for a client in a round is drawn from streams that know nothing of a variant.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mcoe_model.errors import OutputExists
from mcoe_model.files import read_json, write_json
from simulations.arms import train_base
from simulations.console import Crew, Display
from simulations.experiment import begin, prepare
from simulations.parts import make_parts
from simulations.provenance import new_run
from simulations.scene import Paths, open_scene
from simulations.settings import SimulationSettings


def begin_study(settings: SimulationSettings, folder: Path, chosen: dict[str, Any]) -> None:
    """Claim the folder of several runs and write down what they are. Raises OutputExists."""
    if folder.exists():
        raise OutputExists(f"{folder} exists already; go on with --resume {folder}, or name another with --out")
    write_json(Paths(folder).run, new_run(settings) | {"chosen": chosen})


def begin_variant(prepared: Path, folder: Path, **changed: Any) -> None:
    """A run in ``folder`` from the data and the base of a prepared one, with these settings changed.

    Whose the clients' clips are follows the changed settings; everything else of the parts is the prepared run's.
    """
    scene = open_scene(prepared)
    settings = replace(scene.settings, **changed)
    dealt = make_parts(settings, scene.clips.records)
    shutil.copytree(scene.paths.base.parent, Paths(folder).base.parent)
    replace(scene.parts, owners=dealt.owners).write(Paths(folder).parts)
    write_json(Paths(folder).run, read_json(scene.paths.run) | {"settings": asdict(settings)})


def run_base(settings: SimulationSettings, folder: Path, crew: Crew, display: Display) -> None:
    """What all variants share: data, parts and base."""
    if not Paths(folder).run.exists():
        begin(settings, folder)
    prepare(settings, folder, display)
    if not Paths(folder).base.exists():
        crew.start("base model", train_base, folder).result()
