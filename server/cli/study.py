"""`mcoe-server study`: the study's key, and opening what wearers handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcoe_model.study import PRIVATE_FILE, PUBLIC_FILE, make_study_key, read_private_key
from server.cli.common import AsJson, say, told
from server.study import open_study

app = typer.Typer(help="Recordings that wearers hand over to researchers.", no_args_is_help=True)


@app.command(epilog="Example:  mcoe-server study new my-study")
@told
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the key pair.")],
    as_json: AsJson = False,
) -> None:
    """Make the study's key pair. The public part goes to every wearable, the private part nowhere."""
    key = make_study_key(folder)
    said = {"public_key": key.to_line(), "fingerprint": key.fingerprint, "private": str(folder / PRIVATE_FILE)}
    text = (
        f"{key.to_line()}\nthe line above is {folder / PUBLIC_FILE}: copy that to every wearable, as study_key in its "
        f"settings\n{folder / PRIVATE_FILE} opens every export of the study: keep it and a copy in safe places"
    )
    say(said, as_json, text)


@app.command("open", epilog="Example:  mcoe-server study open stick/*.mcoe-study --key my-study/study.key --out see")
@told
def open_exports(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Exports; several become one SEE data set.")],
    key: Annotated[Path, typer.Option(help="The study's private key.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    most_gb: Annotated[float, typer.Option(min=0.001, help="Refuse more than so many gigabytes.")] = 100.0,
    as_json: AsJson = False,
) -> None:
    """Open what wearers exported for this study. Files that were changed, or are for another key, are refused whole."""
    count = open_study(files, read_private_key(key), out, int(most_gb * 1e9))
    say({"out": str(out), "files": count}, as_json, f"opened {len(files)} exports as {count} files in {out}")
