"""`mcoe-server clients`: who is a member of the fleet."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mcoe_model.errors import SettingsError
from mcoe_model.health import UNKNOWN
from server.attention import attention
from server.certificates import fingerprint, names_of, read_certificate
from server.cli.common import DEFAULT_FOLDER, AsJson, Experiment, Folder, opened, say, show, told
from server.fleet import new_pseudonym, read_key_file
from server.handing_out import files_of, hand_out, reached_at, read_span
from server.registry import day_of, utc_now

app = typer.Typer(
    no_args_is_help=True, help="Who is a member of the fleet.",
    epilog="Example:  mcoe-server clients invite --dir fleet",
)

Client = Annotated[str, typer.Argument(help="Pseudonymous id of a client.")]


@app.command(epilog="Example:  mcoe-server clients invite --count 10 --expires 7d --out DIR --address HOST:8443")
@told
def invite(
    client: Annotated[str | None, typer.Argument(help="Pseudonymous id; by default a random one.")] = None,
    address: Annotated[str | None, typer.Option(help="HOST:PORT for wearables; by default the server's own.")] = None,
    count: Annotated[int | None, typer.Option(min=1, max=1000, help="How many, each with a random id.")] = None,
    expires: Annotated[str, typer.Option(help="How long they are good for, such as 7d or 12h.")] = "3d",
    out: Annotated[
        Path | None, typer.Option(help="Folder for ID.txt and ID.png, the line and its QR picture, instead of output.")
    ] = None,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make invitations: one line each, which enrols one wearable, once, before it expires."""
    span = read_span(expires)
    if client is not None and count is not None:
        raise SettingsError(["--count makes random ids; name no client with it"])
    paths, settings, fleet = opened(folder, experiment)
    authority = fingerprint(read_certificate(paths.certificates / "ca.crt"))
    names = names_of(read_certificate(paths.certificates / "server.crt"))
    reached = reached_at(settings.host, settings.port, names, address)
    made: list[dict[str, Any]] = []
    for _ in range(count or 1):
        named = client or new_pseudonym()
        files = files_of(out, named) if out is not None else None
        invitation = fleet.invite(reached, authority, named, span)
        if files is not None:
            hand_out(invitation, *files)
        written = {} if files is None else {"file": str(files[0]), "picture": str(files[1])}
        made.append(asdict(invitation) | {"invitation": invitation.to_line()} | written)
    text = "\n".join(one["invitation"] for one in made)
    if out is not None:
        text = f"invitations in {out}: {len(made)}, each good once, for {expires}; whoever has one first is the client"
    say(made[0] if count is None else made, as_json, text)


@app.command(epilog="Example:  mcoe-server clients add w1 node.pub")
@told
def add(
    client: Client,
    key: Annotated[Path, typer.Argument(help="The wearable's public key: node.pub in its folder.")],
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Enrol a key that you were given."""
    _, _, fleet = opened(folder, experiment)
    fleet.add(client, read_key_file(key))
    fleet.tell_flower()
    say({"client_id": client, "state": "enrolled"}, as_json, f"{client} is enrolled")


@app.command("list", epilog="Example:  mcoe-server clients list --json")
@told
def list_clients(experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Every client with its state, clips and replies, its next check-in, and whether its version is new enough."""
    _, _, fleet = opened(folder, experiment)
    columns = ("id", "alias", "state", "last_seen", "next_check_in", "examples", "client_version", "standing",
               "rounds", "accepted", "rejected")  # fmt: skip
    show(fleet.registry.clients(), as_json, columns, "no clients yet; invite one with: mcoe-server clients invite")


@app.command("show", epilog="Example:  mcoe-server clients show w1")
@told
def show_client(
    client: Client, experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """One client, how its wearable is, and which experts its clips went to in every round that learned from it."""
    _, _, fleet = opened(folder, experiment)
    row, use = fleet.registry.client(client), fleet.registry.expert_use(client)
    needs = attention(row.health, day_of(utc_now())) if row.health else ()
    if as_json:
        used = {number: asdict(statistics) for number, statistics in use.items()}
        say(asdict(row) | {"attention": needs, "expert_use": used}, as_json, "")
        return
    for name, value in asdict(row).items():
        if name not in ("public_key", "consents", "health", "health_day"):
            print(f"{name:14} {'-' if value is None else value}")
    print(f"{'agreed to':14} {', '.join(one.kind for one in row.consents if not one.withdrawn) or 'nothing recorded'}")
    print(f"{'look at':14} {'; '.join(needs) or 'nothing'}")
    if row.health and row.health_day is not None:
        said = (f"{name} {value}" for name, value in asdict(row.health).items() if value != UNKNOWN)
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=row.health_day)
        print(f"{'health':14} {', '.join(said)} (said on {day})")
    experts = range(max((len(statistics.routed) for statistics in use.values()), default=0))
    columns = ("round", "clips", *(f"expert {expert}" for expert in experts))
    routed = [
        dict.fromkeys(columns) | {"round": number, "clips": statistics.examples}
        | {f"expert {expert}": count for expert, count in enumerate(statistics.routed)}
        for number, statistics in use.items()
    ]  # fmt: skip
    show(routed, False, columns, "no round that was published learned from it, or its routing is kept no longer")


@app.command(epilog="Example:  mcoe-server clients revoke w1 --lost")
@told
def revoke(
    client: Client,
    lost: Annotated[bool, typer.Option("--lost", help="Its device is lost: tell it, so that it locks itself.")] = False,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Let a client take part no longer. What it contributed stays; see also `mcoe-server forget`."""
    _, _, fleet = opened(folder, experiment)
    fleet.registry.revoke(client, lost)
    fleet.tell_flower()
    state = "lost" if lost else "revoked"
    told = "; it will be told when it asks next, and then locks if it has a passphrase" if lost else ""
    say({"client_id": client, "state": state}, as_json, f"{client} is {state}{told}")


@app.command(epilog="Example:  mcoe-server clients rename w1 'left eye, blue frame'")
@told
def rename(
    client: Client,
    alias: Annotated[str, typer.Argument(help="Your word for it. Name no person: it is stored.")],
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Give a client an alias that only the operator sees."""
    _, _, fleet = opened(folder, experiment)
    fleet.registry.rename(client, alias)
    say({"client_id": client, "alias": alias}, as_json, f"{client} is called {alias}")
