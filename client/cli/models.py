"""`mcoe-client model import`: a model from a file, for a wearable that is in no fleet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, say, settled, told
from client.model_import import import_model

model = typer.Typer(
    help="The model that recognises.", no_args_is_help=True,
    epilog="Example:  mcoe-client model import model.safetensors",
)


@model.command("import", epilog="Example:  mcoe-client model import mcoe-edge.safetensors")
@told
def import_file(
    file: Annotated[Path, typer.Argument(help="Model as mcoe-server or simulations/train_centralised.py wrote it.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Check a model, and recognise with it from now on unless it is worse on the wearer's own clips."""
    found = import_model(settled(folder).paths, file)
    now = "recognises from now on" if found.runs else "is worse, and waits; the page can take it all the same"
    trial = f": {found.trial.in_words()}" if found.trial is not None else ""
    say(asdict(found), as_json, f"{found.preset} {found.sha256[:12]} {now}{trial}")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(model, name="model")
