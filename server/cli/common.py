"""What the commands share: the data folder, JSON, errors as one line with an exit code."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcoe_model.errors import McoeError
from mcoe_model.signed_request import RequestRefused
from server.fleet import Fleet, open_fleet
from server.paths import ServerPaths
from server.settings import ServerSettings
from server.settings_file import load_experiments, load_settings

P = ParamSpec("P")

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Data folder of the server.")]
Experiment = Annotated[
    str | None, typer.Option("--experiment", metavar="NAME", help="Experiment; by default the only one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_FOLDER = Path("mcoe-server")


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Expected errors become one line on standard error and their exit code."""

    @functools.wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            command(*arguments, **named)
        except McoeError as fault:
            print(f"error: {fault}", file=sys.stderr)
            raise typer.Exit(fault.exit_code) from fault
        except RequestRefused as fault:
            print(f"error: {fault}", file=sys.stderr)
            raise typer.Exit(1) from fault

    return run


def opened(folder: Path, experiment: str | None = None) -> tuple[ServerPaths, ServerSettings, Fleet]:
    """An experiment of an existing data folder, the named one or the only one, with its registry open.

    Raises DataMissing, SettingsError, SchemaTooNew.
    """
    paths = ServerPaths(folder.absolute())
    settings = load_settings(paths, {}, experiment=experiment)
    names = [one.experiment for one in load_experiments(paths, {})]
    return paths, settings, open_fleet(paths, settings, names)


def show(rows: Any, as_json: bool, columns: Sequence[str], empty: str) -> None:
    """Rows as a table of these columns, or as JSON with everything that they hold."""
    plain = [_plain(row) for row in rows]
    if as_json:
        print(json.dumps(plain, default=str))
        return
    if not plain:
        print(empty)
        return
    table = Table(*columns)
    for row in plain:
        table.add_row(*(Text(_cell(row[column])) for column in columns))  # what a client says is no markup
    Console().print(table)


def say(result: Any, as_json: bool, text: str) -> None:
    """One result as JSON or as its text."""
    print(json.dumps(result, default=str) if as_json else text)


def _plain(row: Any) -> dict[str, Any]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return str(value)
