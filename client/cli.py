"""`mcoe-client`: the wearable's program."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from client.app import make_client_app
from client.enrolment import ClientPaths, Membership, download_model, read_membership
from client.enrolment import enrol as join
from client.folder_store import FolderStore
from client.node import Connection, Node
from client.outbox import Outbox
from mcoe_model.errors import McoeError, ServerUnreachable
from mcoe_model.invitation import Invitation
from mcoe_model.workers import one_thread

app = typer.Typer(add_completion=False, no_args_is_help=True)

DEFAULT_FOLDER = Path.home() / ".local" / "share" / "mcoe-client"
#: Seconds between two tries to reach a server from which nothing has come yet.
RETRY_S = 5.0
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of this wearable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Device(StrEnum):
    """Where pictures come from."""

    none = "none"


@app.callback(invoke_without_command=True, epilog="Example:  mcoe-client --device none")
def run(
    context: typer.Context,
    device: Annotated[Device | None, typer.Option(help="Camera: none learns from the enrolled folder.")] = None,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Learn from this wearer's labelled clips, and let the fleet learn with it. No picture or label leaves here."""
    if context.invoked_subcommand is None:
        _told(lambda: _run(ClientPaths(folder)))


@app.command(
    epilog="Example:  mcoe-client enrol mcoe-invitation:10.0.0.5:8443/... --clips ~/clips --subject 012"
)
def enrol(
    invitation: Annotated[str, typer.Argument(help="The line that `mcoe-server clients invite` printed.")],
    clips: Annotated[Path, typer.Option(help="Folder of labelled clips in SEE's layout.")],
    subject: Annotated[str, typer.Option(help="Whose sequences of that folder are this wearer's.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Join a fleet. The wearable's key is made here and stays here."""

    def do() -> None:
        membership = join(ClientPaths(folder), Invitation.from_line(invitation), clips, subject)
        said = {"client_id": membership.client_id, "address": membership.address, "dir": str(folder)}
        _say(said, as_json, f"joined {membership.address} as {membership.client_id}; next: mcoe-client --device none")

    _told(do)


@app.command(epilog="Example:  mcoe-client status --json")
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """What this wearable is a member of, and what waits in its outbox."""

    def do() -> None:
        paths = ClientPaths(folder)
        waiting = Outbox(paths.outbox).ids()
        said = {**asdict(read_membership(paths)), "outbox": list(waiting)}
        text = f"member of {said['address']} as {said['client_id']}; {len(waiting)} updates wait for the server"
        _say(said, as_json, text)

    _told(do)


def _run(paths: ClientPaths) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    one_thread()
    membership = read_membership(paths)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    model = _find_model(paths, membership, stopped)
    if model is None:
        return
    store = FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, model)
    logging.info("%s has %d labelled clips", membership.client_id, len(store.clip_names()))
    connection = Connection(membership.address, paths.authority, paths.key, paths.folder)
    Node(connection, make_client_app(lambda context: store, Outbox(paths.outbox)), stopped).run()


def _find_model(paths: ClientPaths, membership: Membership, stopped: threading.Event) -> Path | None:
    """The fleet's newest model; while the server does not answer, one that is here already, or wait for it.

    Any model of the generation will do: its backbones encode the clips, and a task brings the rest.
    """
    said = False
    while not stopped.is_set():
        try:
            return download_model(paths, membership.address)
        except ServerUnreachable as fault:
            here = sorted(paths.models.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
            if here:
                return here[-1]
            if not said:
                logging.warning("%s; trying again every %.0f s", fault, RETRY_S)
            said = True
            stopped.wait(RETRY_S)
    return None


def _say(said: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(said) if as_json else text)


def _told(do: Callable[[], None]) -> None:
    """Errors as one line on standard error, with their exit code."""
    try:
        do()
    except McoeError as fault:
        print(f"error: {fault}", file=sys.stderr)
        raise typer.Exit(fault.exit_code) from fault
