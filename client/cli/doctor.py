"""`mcoe-client doctor`: is everything there that a recording needs? `diagnose`: the same for whoever helps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cameras.source import parse_device
from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, say, told
from client.control import ask
from mcoe_model.errors import ExitCode, OutputExists, WearableDown
from mcoe_model.files import write_json

_MARKS = {"ok": "ok", "unknown": "?", "warning": "!", "wrong": "WRONG"}


@told
def doctor(
    device: Annotated[str, typer.Option(help="The camera that is to be used.")] = "davis346",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """The check before a recording: each line with what to do. Exit code 1 when something is wrong."""
    from client.doctor import Premises, examine
    from client.settings import load_settings

    try:
        now: dict[str, Any] | None = ask(folder, "status")
    except WearableDown:
        now = None
    found = examine(Premises(folder, parse_device(device), load_settings(folder, {}), now))
    if as_json:
        say([asdict(finding) for finding in found], True, "")
    else:
        table = Table()
        for title in ("check", "", "found", "what to do"):
            table.add_column(title, overflow="fold")  # a command that is cut cannot be typed
        for finding in found:
            row = (finding.check, _MARKS[finding.state], finding.what, finding.remedy)
            table.add_row(*map(Text, row))  # no markup: "mcoe[capture]" is meant as it stands
        Console().print(table)
    if any(finding.state == "wrong" for finding in found):
        raise typer.Exit(ExitCode.FAILED)


@told
def diagnose(
    out: Annotated[Path, typer.Option(help="File to write; a name that is not taken.")],
    device: Annotated[str, typer.Option(help="The camera that is to be used.")] = "davis346",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """A file for whoever helps: versions, settings, checks and counts; no name, path, label or serial.

    It is shown before it is written, and sent to nobody.
    """
    from client.diagnosis import diagnosis

    if out.exists():
        raise OutputExists(f"{out} is there already; name another file")
    found = diagnosis(folder, parse_device(device))
    say(found, as_json, json.dumps(found, indent=2))
    write_json(out, found)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example:  mcoe-client doctor --device davis346")(doctor)
    app.command(epilog="Example:  mcoe-client diagnose --out bundle.json")(diagnose)
