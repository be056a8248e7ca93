"""`mcoe-server models`: every version, and what happens to it."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mcoe_model.errors import DataMissing, ModelInvalid, OutputExists
from mcoe_model.model_file import TERNARY, read_model
from server.cli.common import DEFAULT_FOLDER, AsJson, Experiment, Folder, opened, say, show, told
from server.registry.models import HELD, RELEASED, ModelState
from server.registry.tables import ENROLLED

app = typer.Typer(
    no_args_is_help=True, help="Every version of the model, and what happens to it.",
    epilog="Example:  mcoe-server models list --dir fleet",
)

Version = Annotated[int, typer.Argument(help="Version of a model.")]


@app.command("list", epilog="Example:  mcoe-server models list")
@told
def list_models(experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Every version with its state."""
    _, _, fleet = opened(folder, experiment)
    columns = ("version", "state", "sha256", "parent_sha256", "generation", "created")
    show(fleet.registry.models(), as_json, columns, "no model yet; mcoe-server models import FILE makes version 1")


@app.command("show", epilog="Example:  mcoe-server models show 4")
@told
def show_model(
    version: Version, experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """One version: its card, and whose updates shaped it."""
    _, _, fleet = opened(folder, experiment)
    row = fleet.registry.model(version)
    _, card = fleet.artifacts.get(row.sha256)
    shaped = fleet.registry.shaped_by(row.sha256)
    trial = fleet.registry.trial_notes().get(version)
    file = str(fleet.artifacts.path(row.sha256))
    found = asdict(row) | {"trial": trial, "card": asdict(card), "shaped_by": shaped, "file": file}
    lines = [f"{name:14} {value}" for name, value in found.items() if name not in ("card", "shaped_by")]
    lines += [f"{'origin':14} {card.origin}", f"{'shaped by':14} {', '.join(sorted(shaped)) or 'no client'}"]
    say(found, as_json, "\n".join(lines))


@app.command("import", epilog="Example:  mcoe-server models import runs/base/model.safetensors")
@told
def import_model(
    file: Annotated[Path, typer.Argument(help="A model file with its card, such as train_centralised.py writes.")],
    new_generation: Annotated[
        bool, typer.Option("--new-generation", help="Release it although it is of another generation.")
    ] = False,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Release a model that was made elsewhere: the fleet's first one, or the next.

    One of another generation (preset, backbones, pictures) is refused without --new-generation: what wearables have
    encoded and trained is of no use to it. They fetch it, and encode anew the clips whose pictures they still have,
    before they train.
    """
    _, _, fleet = opened(folder, experiment)
    tensors, card = read_model(file)
    if card.generation.representation != TERNARY:
        raise ModelInvalid(
            f"{file} sees events as {card.generation.representation}, and every wearable makes {TERNARY} pictures; "
            f"train one with --representation {TERNARY}"
        )
    newest = fleet.registry.newest_model()
    before = fleet.artifacts.get(newest)[1].generation if newest else card.generation
    begins = before != card.generation
    holding = [client for client in fleet.registry.clients() if client.state == ENROLLED and client.examples]
    raw = [one for one in fleet.registry.clients() if one.state == ENROLLED and one.health and one.health.minutes > 0]
    anew = f"{len(holding)} enrolled wearables hold clips, {sum(client.examples or 0 for client in holding)} together"
    anew += f"; {len(raw)} say that recordings are still there"
    if begins and not new_generation:
        raise ModelInvalid(
            f"{file} is of generation {card.generation.id} ({card.generation.preset}), the fleet of {before.id} "
            f"({before.preset}); --new-generation releases it all the same. By their last check-ins {anew}, which "
            "alone can be encoded anew, beside clips of enrolled folders; what the others hold would be lost"
        )
    if new_generation and not begins:
        raise ModelInvalid(f"{file} begins no generation; import it without --new-generation")
    sha256 = fleet.artifacts.put(tensors, card)
    version = fleet.registry.import_model(sha256, card.generation.id)
    said = {"version": version, "sha256": sha256, "generation": card.generation.id, "new_generation": begins}
    text = f"version {version} is released ({sha256[:12]})"
    if begins:
        said |= {"wearables": len(holding), "with_recordings": len(raw)}
        text += f" and begins generation {card.generation.id}; {anew}, which they encode anew, as clips of folders"
    say(said, as_json, text)


@app.command(epilog="Example:  mcoe-server models export 4 model.safetensors")
@told
def export(
    version: Version,
    file: Annotated[Path, typer.Argument(help="File to write.")],
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Copy a version's file, card included."""
    _, _, fleet = opened(folder, experiment)
    row = fleet.registry.model(version)
    if file.exists():
        raise OutputExists(f"{file} exists already; name another")
    fleet.artifacts.get(row.sha256)  # checks the hash
    shutil.copyfile(fleet.artifacts.path(row.sha256), file)
    say({"version": version, "sha256": row.sha256, "file": str(file)}, as_json, f"version {version} is in {file}")


@app.command(epilog="Example:  mcoe-server models promote 7")
@told
def promote(
    version: Version, experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """Release a version that was held back, or that is candidate or canary.

    The next round starts from the newest released one.
    """
    _set_state(version, RELEASED, experiment, folder, as_json)


@app.command(epilog="Example:  mcoe-server models hold 7")
@told
def hold(
    version: Version, experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """Hold a version back: no round starts from it, no wearable gets it. A canary's wearables go back."""
    _set_state(version, HELD, experiment, folder, as_json)


def _set_state(version: int, state: ModelState, experiment: str | None, folder: Path, as_json: bool) -> None:
    _, _, fleet = opened(folder, experiment)
    row = fleet.registry.model(version)
    released = [model for model in fleet.registry.models() if model.state == RELEASED and model.sha256 != row.sha256]
    if state == HELD and not released:
        raise ModelInvalid(f"version {version} is the only released one; import or promote another first")
    fleet.registry.set_model_state(row.sha256, state)
    say({"version": version, "state": state}, as_json, f"version {version} is {state}")


@app.command(epilog="Example:  mcoe-server models rollback 3")
@told
def rollback(
    version: Version, experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """Release an old version again, as a new one; the next round starts from it. An undecided model is held."""
    _, _, fleet = opened(folder, experiment)
    row = fleet.registry.model(version)
    if not fleet.artifacts.path(row.sha256).is_file():
        raise DataMissing(f"the file of version {version} is gone; restore it from a backup")
    new = fleet.registry.release_again(version)
    said = {"version": new, "sha256": row.sha256, "same_as": version}
    say(said, as_json, f"version {new} is released with the bytes of version {version}")
