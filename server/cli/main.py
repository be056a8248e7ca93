"""The commands of `mcoe-server` that have no group: init, start, status, forget."""

from __future__ import annotations

import fcntl
import json
import secrets
import socket
import sys
from contextlib import closing
from dataclasses import asdict
from typing import IO, Annotated

import typer
from rich.console import Console

from mcoe_model.errors import DataMissing, OutputExists, PortInUse, ServerRuns, SettingsError
from mcoe_model.files import write_bytes
from server.aggregation.private_mean import PrivateMean
from server.certificates import fingerprint, make_authority, make_server_certificate, read_certificate
from server.cli import care, clients, models, rounds
from server.cli.common import DEFAULT_FOLDER, AsJson, Folder, opened, say, told
from server.dashboard.access import dashboard_token
from server.fleet import open_fleet
from server.privacy_accounting import assumption_faults
from server.registry.fleet import ENROLLED
from server.settings import ServerPaths, ServerSettings, load_settings, write_running
from server.supervisor import KINDS, Supervisor

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The fleet's server.")
app.add_typer(clients.app, name="clients")
app.add_typer(rounds.app, name="rounds")
app.add_typer(models.app, name="models")
app.add_typer(care.db, name="db")
app.add_typer(care.certificates, name="certificates")
app.command("doctor", epilog="Example:  mcoe-server doctor --json")(care.doctor)
app.command("backup", epilog="Example:  mcoe-server backup /media/copy/2026-11-21")(care.backup)
app.command("restore", epilog="Example:  mcoe-server restore /media/copy/2026-11-21 --dir new-server")(care.restore)

Port = Annotated[int | None, typer.Option(help="Port that wearables reach [8443].")]


@app.command(epilog="Example:  mcoe-server init --dir fleet --name fleet.example.org --name 10.0.0.5")
@told
def init(
    folder: Folder = DEFAULT_FOLDER,
    name: Annotated[list[str] | None, typer.Option(help="Host name or address by which wearables reach it.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Port = None,
    as_json: AsJson = False,
) -> None:
    """Make the data folder: settings, the fleet's certificate authority, the server's certificate and keys."""
    paths = ServerPaths(folder.absolute())
    if paths.settings.exists():
        raise OutputExists(f"{folder} holds a server already; nothing was changed")
    first = port or 8443
    settings = ServerSettings(host=host, port=first, local_port=first + 1, dashboard_port=first + 2)
    make_authority(paths.certificates)
    make_server_certificate(paths.certificates, [*(name or []), "localhost", "127.0.0.1"])
    write_bytes(paths.secret, secrets.token_hex(32).encode())
    written = ("host", "port", "local_port", "dashboard_port")
    lines = [f"{key} = {json.dumps(getattr(settings, key))}" for key in written]
    write_bytes(paths.settings, ("\n".join(lines) + "\n").encode())
    authority = fingerprint(read_certificate(paths.certificates / "ca.crt"))
    where = "" if folder == DEFAULT_FOLDER else f" --dir {folder}"
    said = {"dir": str(paths.folder), "fingerprint": authority}
    say(said, as_json, f"made {folder}; the fleet's first model comes next:\n"
        f"  mcoe-server models import FILE{where}     (simulations/train_centralised.py makes one)\n"
        f"then:\n  mcoe-server start{where}")


@app.command(epilog="Example:  mcoe-server start --min-clients 3 --deadline-s 600")
@told
def start(
    folder: Folder = DEFAULT_FOLDER,
    port: Port = None,
    min_clients: Annotated[int | None, typer.Option(help="Clients with clips that a round needs.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Clients per round: all, a number or a share.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds after which a round closes.")] = None,
    pause_s: Annotated[float | None, typer.Option(help="Seconds between two rounds.")] = None,
    rule: Annotated[str | None, typer.Option(help="Aggregation rule.")] = None,
    train: Annotated[str | None, typer.Option(help="head or full.")] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C. Every setting can also stand in DIR/mcoe-server.toml.

    Environment variables go over the file (MCOE_SERVER_PORT and the like), flags over both.
    """
    paths = ServerPaths(folder.absolute())
    flags = {"port": port, "min_clients": min_clients, "cohort": cohort, "deadline_s": deadline_s,
             "pause_s": pause_s, "rule": rule, "train": train}  # fmt: skip
    settings = load_settings(paths, flags)
    fleet = open_fleet(paths, settings)
    newest = fleet.registry.newest_model()
    if newest is None:
        raise DataMissing(
            f"the fleet has no model yet; import its first one with: mcoe-server models import FILE --dir {folder} "
            "(simulations/train_centralised.py makes one)"
        )
    if settings.private:
        _check_private(settings, sum(client.state == ENROLLED for client in fleet.registry.clients()))
    kinds = [kind for kind in KINDS if kind != "dashboard" or settings.dashboard_port]
    _check_free(settings.host, settings.port)
    for port_here in filter(None, (settings.local_port, settings.dashboard_port)):
        _check_free("127.0.0.1", port_here)
    held = _hold(paths)
    write_running(paths, settings)
    console = Console(stderr=True, highlight=False)
    console.print(f"listening for wearables at https://{settings.host}:{settings.port}, model {newest[:12]}, "
                  f"rule {settings.rule}, registry {fleet.registry.engine.url.render_as_string()}")
    console.print(f"enrol a wearable with what this prints: mcoe-server clients invite --dir {folder}")
    if settings.dashboard_port:
        dashboard_token(paths.folder / "dashboard.token")  # made now, so that the next line works at once
        console.print(f"dashboard: http://127.0.0.1:{settings.dashboard_port}/?token=$(cat {folder}/dashboard.token)")
    fleet.registry.engine.dispose()
    Supervisor(paths, kinds, lambda line: console.print(line)).run()
    held.close()
    console.print("stopped; everything accepted so far is kept")


@app.command(epilog="Example:  mcoe-server status --json")
@told
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """What the fleet is doing: clients, the open round, the newest model."""
    _, settings, fleet = opened(folder)
    members = fleet.registry.clients()
    current = fleet.registry.unfinished_round()
    newest = fleet.registry.newest_model()
    said = {
        "running": _answers(settings),
        "clients": {state: sum(c.state == state for c in members) for state in sorted({c.state for c in members})},
        "rounds_published": fleet.registry.last_published(),
        "open_round": asdict(current) if current else None,
        "model": newest,
    }
    waiting = ""
    if current:
        heard = {reply.client_id for reply in fleet.registry.replies(current.id)}
        waiting = ", ".join(client for client in current.cohort if client not in heard)
        said["waiting_for"] = [client for client in current.cohort if client not in heard]
    lines = [
        f"server   {'running' if said['running'] else 'not running'}",
        f"clients  {', '.join(f'{n} {state}' for state, n in said['clients'].items()) or 'none'}",  # type: ignore[attr-defined]
        f"rounds   {said['rounds_published']} published",
        f"open     round {current.number}, waiting for {waiting or 'nobody'}" if current else "open     none",
        f"model    {newest[:12] if newest else 'none'}",
    ]
    say(said, as_json, "\n".join(lines))


@app.command(epilog="Example:  mcoe-server forget w1")
@told
def forget(
    client: Annotated[str, typer.Argument(help="Pseudonymous id of a client.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Delete what is kept of a client, and print the receipt. Models that learned from it are listed, not changed."""
    _, _, fleet = opened(folder)
    receipt = fleet.forget(client)
    rows = sum(receipt.deleted.values())
    shaped = ", ".join(str(model.version) for model in receipt.descendants) or "none"
    say(asdict(receipt), as_json, f"deleted {rows} rows of {client}; versions that learned from it: {shaped}")


def _check_private(settings: ServerSettings, enrolled: int) -> None:
    """Raises SettingsError with everything that would make the epsilons of private rounds untrue."""
    faults = assumption_faults(
        rule=PrivateMean.name,
        router=settings.router,
        all_experts_sent=True,
        norm_bound_learned=False,
        router_statistics_released=False,
        losses_released=False,
        first_k=False,
        delta=settings.private_delta,
        clients=max(1, enrolled),
    )
    if settings.keep_updates:
        faults.append("keep_updates must be off: kept updates carry no noise")
    if faults:
        raise SettingsError(faults)


def _hold(paths: ServerPaths) -> IO[str]:
    """Keep the data folder for this process until the file is closed, or the process ends. Raises ServerRuns."""
    file = (paths.folder / "running.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        raise ServerRuns(f"a server runs on {paths.folder} already; end it first") from fault
    return file


def _answers(settings: ServerSettings) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", settings.local_port)) == 0


def _check_free(host: str, port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise PortInUse(f"port {port} at {host} is taken ({fault.strerror}); end what listens there, or choose "
                            "another with --port") from fault


if __name__ == "__main__":
    sys.exit(app())
