"""`mcoe-server clients`: who is a member of the fleet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from server.certificates import fingerprint, read_certificate
from server.cli.common import DEFAULT_FOLDER, AsJson, Folder, opened, say, show, told
from server.fleet import read_key_file

app = typer.Typer(no_args_is_help=True, help="Who is a member of the fleet.")

Client = Annotated[str, typer.Argument(help="Pseudonymous id of a client.")]


@app.command(epilog="Example:  mcoe-server clients invite --address fleet.example.org:8443")
@told
def invite(
    client: Annotated[str | None, typer.Argument(help="Pseudonymous id; by default a random one.")] = None,
    address: Annotated[str | None, typer.Option(help="HOST:PORT for wearables; by default the settings'.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Print an invitation: one line that enrols one wearable, once, within three days."""
    paths, settings, fleet = opened(folder)
    authority = fingerprint(read_certificate(paths.certificates / "ca.crt"))
    line = fleet.invite(address or f"{settings.host}:{settings.port}", authority, client)
    say(asdict(line) | {"invitation": line.to_line()}, as_json, line.to_line())


@app.command(epilog="Example:  mcoe-server clients add w1 node.pub")
@told
def add(
    client: Client,
    key: Annotated[Path, typer.Argument(help="The wearable's public key: node.pub in its folder.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Enrol a key that you were given."""
    _, _, fleet = opened(folder)
    fleet.add(client, read_key_file(key))
    fleet.tell_flower()
    say({"client_id": client, "state": "enrolled"}, as_json, f"{client} is enrolled")


@app.command("list", epilog="Example:  mcoe-server clients list --json")
@told
def list_clients(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Every client with its state, clips and replies."""
    _, _, fleet = opened(folder)
    columns = ("id", "alias", "state", "last_seen", "examples", "client_version", "rounds", "accepted", "rejected")
    show(fleet.registry.clients(), as_json, columns, "no clients yet; invite one with: mcoe-server clients invite")


@app.command(epilog="Example:  mcoe-server clients revoke w1")
@told
def revoke(client: Client, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Let a client take part no longer. What it contributed stays; see also `mcoe-server forget`."""
    _, _, fleet = opened(folder)
    fleet.registry.revoke(client)
    fleet.tell_flower()
    say({"client_id": client, "state": "revoked"}, as_json, f"{client} is revoked")


@app.command(epilog="Example:  mcoe-server clients rename w1 'left eye, blue frame'")
@told
def rename(
    client: Client,
    alias: Annotated[str, typer.Argument(help="Your word for it. Name no person: it is stored.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Give a client an alias that only the operator sees."""
    _, _, fleet = opened(folder)
    fleet.registry.rename(client, alias)
    say({"client_id": client, "alias": alias}, as_json, f"{client} is called {alias}")
