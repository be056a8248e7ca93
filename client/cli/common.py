"""What the commands share: the wearable's folder, JSON, errors as one line with an exit code, and the store at rest."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from client.enrolment import ClientPaths
from mcoe_model.errors import DataMissing, McoeError, WearableRuns

P = ParamSpec("P")

DEFAULT_FOLDER = Path.home() / ".local" / "share" / "mcoe-client"
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of this wearable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Expected errors become one line on standard error and their exit code."""

    @functools.wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            command(*arguments, **named)
        except McoeError as fault:
            print(f"error: {fault}", file=sys.stderr)
            raise typer.Exit(fault.exit_code) from fault

    return run


def say(result: Any, as_json: bool, text: str) -> None:
    """One result as JSON or as its text."""
    print(json.dumps(result, default=str) if as_json else text)


def paths_of(folder: Path) -> ClientPaths:
    """The files of whoever wears this wearable now. Nothing is changed."""
    from client.wearers import Wearers  # brings SQLAlchemy, which most commands do not need

    return Wearers(folder, finish=False).paths


def settled(folder: Path) -> Any:
    """The wearable's `Wearers`, after what a process that died had begun was finished, unless one runs that does it."""
    from client.only_one import only_one
    from client.wearers import Wearers

    if folder.exists():
        with suppress(WearableRuns), only_one(folder):
            Wearers(folder)
    return Wearers(folder, finish=False)


@contextmanager
def store_at_rest(folder: Path) -> Iterator[Any]:
    """The wearer's store while no main process runs: locked, unless its key needs no passphrase.

    Raises WearableRuns, DataMissing without a wearer, SchemaTooNew.
    """
    from client import keys
    from client.only_one import only_one
    from client.sessions import Store
    from client.settings import load_settings

    wearers = settled(folder)
    if wearers.current is None:
        raise DataMissing(f"{folder} has no wearer yet; begin with: mcoe-client --device davis346")
    with only_one(folder):
        paths = wearers.paths
        key = None if keys.needs_passphrase(paths.device_key) else keys.read_keyfile(paths.device_key)
        store = Store(paths.store, paths.recordings, load_settings(folder, {}).rules(), key)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def opened_store(folder: Path) -> Iterator[tuple[Any, Any]]:
    """The wearer's store, unlocked, and its device key: to read from, whether or not a main process runs.

    One that runs is alone in writing to it; where none does, none can begin meanwhile. A passphrase is asked for even
    if the wearable that runs has heard it: what is read here leaves the wearable.
    Raises Locked, DataMissing without a wearer, DataInvalid, SchemaTooNew.
    """
    from client import keys
    from client.only_one import only_one
    from client.sessions import Store
    from client.settings import load_settings

    wearers = settled(folder)
    paths = wearers.paths
    if wearers.current is None:
        raise DataMissing(f"{folder} has no wearer yet; begin with: mcoe-client --device davis346")
    if keys.needs_passphrase(paths.device_key):
        key = keys.unlock(paths.device_key, secret("Passphrase or recovery key"))
    else:
        key = keys.read_keyfile(paths.device_key)
    with ExitStack() as ended:
        runs = False
        try:
            ended.enter_context(only_one(folder))
        except WearableRuns:
            runs = True
        store = Store(paths.store, paths.recordings, load_settings(folder, {}).rules(), key, look=runs)
        ended.enter_context(closing(store))
        yield store, key


def secret(asked: str) -> str:
    """A passphrase: typed unseen at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(asked, hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\n")
