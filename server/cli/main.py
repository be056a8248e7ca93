"""The commands of `mcoe-server` that have no group: init, start, status, forget."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console

from mcoe_model.errors import DataMissing, DecisionNeeded, OutputExists, SettingsError
from mcoe_model.files import write_bytes
from server.aggregation.private_mean import PrivateMean
from server.certificates import fingerprint, make_authority, make_server_certificate, read_certificate
from server.cli import care, clients, models, rounds, study
from server.cli.audit import audit
from server.cli.common import DEFAULT_FOLDER, AsJson, Experiment, Folder, opened, say, told
from server.cli.status import experiment_status, server_lines, server_status, status_lines
from server.experiments import open_experiments
from server.handing_out import is_every_address
from server.lock import hold
from server.paths import ServerPaths
from server.ports import check_free
from server.privacy_accounting import assumption_faults
from server.registry.privacy import Forgetting, Outlook
from server.registry.tables import ENROLLED
from server.settings import ServerSettings
from server.settings_file import load_experiments, load_settings, write_running
from server.supervisor import Supervisor, children_of

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="The fleet's server."
)
app.add_typer(clients.app, name="clients")
app.add_typer(rounds.app, name="rounds")
app.add_typer(models.app, name="models")
app.add_typer(study.app, name="study")
app.add_typer(care.db, name="db")
app.add_typer(care.certificates, name="certificates")
app.command("audit", epilog="Example:  mcoe-server audit --client w1 --kind canary")(audit)
app.command("doctor", epilog="Example:  mcoe-server doctor --json")(care.doctor)
app.command("backup", epilog="Example:  mcoe-server backup /media/copy/2026-11-21")(care.backup)
app.command("restore", epilog="Example:  mcoe-server restore /media/copy/2026-11-21 --dir new-server")(care.restore)

#: What `init --sleeping` writes, in seconds: a check-in an hour, and a week in which a round's first replies may come.
CHECK_IN_S, DEADLINE_S = 3600.0, 7 * 86_400.0

Port = Annotated[int | None, typer.Option(help="Port that wearables reach [8443].")]


@app.command(epilog="Example:  mcoe-server init --dir fleet --name fleet.example.org --name 10.0.0.5")
@told
def init(
    folder: Folder = DEFAULT_FOLDER,
    name: Annotated[list[str] | None, typer.Option(help="Host name or address by which wearables reach it.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Port = None,
    sleeping: Annotated[
        bool, typer.Option("--sleeping", help="For wearables that check in once an hour and are seldom there together.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the data folder: settings, the fleet's certificate authority, the server's certificate and keys."""
    paths = ServerPaths(folder.absolute())
    if paths.settings.exists():
        raise OutputExists(f"{folder} holds a server already; nothing was changed")
    first = port or 8443
    settings = ServerSettings(host=host, port=first, local_port=first + 1, dashboard_port=first + 2)
    if sleeping:
        settings = replace(settings, check_in_s=CHECK_IN_S, deadline_s=DEADLINE_S)
    make_authority(paths.certificates)
    own = [] if is_every_address(host) else [host]
    names = dict.fromkeys([*(name or []), *own, "localhost", "127.0.0.1"])
    make_server_certificate(paths.certificates, list(names))
    write_bytes(paths.secret, secrets.token_hex(32).encode())
    written = ("host", "port", "local_port", "dashboard_port", *(("check_in_s", "deadline_s") if sleeping else ()))
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
    as_json: AsJson = False,
) -> None:
    """Run the server until SIGTERM or Ctrl-C. Every setting can also stand in DIR/mcoe-server.toml.

    Environment variables go over the file (MCOE_SERVER_PORT and the like), flags over both. What it listens on is said
    once, as text on standard error or as one line of JSON on standard output; what becomes of its processes, on
    standard error.
    """
    paths = ServerPaths(folder.absolute())
    flags = {"port": port, "min_clients": min_clients, "cohort": cohort, "deadline_s": deadline_s,
             "pause_s": pause_s, "rule": rule, "train": train}  # fmt: skip
    running = load_experiments(paths, flags)
    settings, experiments = running[0], open_experiments(paths, running)
    newest = {}
    for one in running:
        registry = experiments.fleets[one.experiment].registry
        newest[one.experiment] = registry.newest_model()
        if newest[one.experiment] is None:
            which = f" --experiment {one.experiment}" if len(running) > 1 else ""
            raise DataMissing(
                f"{one.experiment if which else 'the fleet'} has no model yet; import its first one with: mcoe-server "
                f"models import FILE --dir {folder}{which} (simulations/train_centralised.py makes one)"
            )
        if one.private:
            _check_private(one, sum(client.state == ENROLLED for client in registry.clients()))
    check_free(settings.host, settings.port)
    for port_here in filter(None, (settings.local_port, settings.dashboard_port)):
        check_free("127.0.0.1", port_here)
    held = hold(paths.running_lock, f"a server runs on {paths.folder} already")
    write_running(paths, running)
    console = Console(stderr=True, highlight=False, markup=False)
    engine = experiments.fleets[settings.experiment].registry.engine
    said: dict[str, Any] = {
        "listening": f"https://{settings.host}:{settings.port}",
        "registry": engine.url.render_as_string(),
        "experiments": {
            one.experiment: {"model": newest[one.experiment], "rule": one.rule_in_force} for one in running
        },
        "invite": f"mcoe-server clients invite --dir {folder}{' --experiment NAME' if len(running) > 1 else ''}",
        "dashboard": f"http://127.0.0.1:{settings.dashboard_port}/" if settings.dashboard_port else None,
    }
    engine.dispose()
    if settings.dashboard_port:
        # Brings FastAPI with it: 0.4 s of processor time that no other command needs.
        from server.dashboard.access import dashboard_token

        dashboard_token(paths.folder / "dashboard.token")  # made now, so that its address works at once
    if as_json:
        print(json.dumps(said), flush=True)
    else:
        console.print(f"listening for wearables at {said['listening']}, registry {said['registry']}")
        for name, one in said["experiments"].items():
            console.print(f"experiment {name}: model {one['model'][:12]}, rule {one['rule']}")
        console.print(f"enrol a wearable with what this prints: {said['invite']}")
        if said["dashboard"]:
            console.print(f"dashboard: {said['dashboard']}?token=$(cat {folder}/dashboard.token)")
    children = children_of([one.experiment for one in running], dashboard=bool(settings.dashboard_port))
    Supervisor(paths, children, lambda line: console.print(line)).run()
    held.close()
    console.print("stopped; everything accepted so far is kept")


@app.command(epilog="Example:  mcoe-server status --json")
@told
def status(experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """What every experiment, or the named one, is doing: clients, open round, newest model, undecided model."""
    paths = ServerPaths(folder.absolute())
    running = load_experiments(paths, {})
    if experiment is not None:
        running = (load_settings(paths, {}, experiment=experiment),)
    fleets = open_experiments(paths, running).fleets
    experiments = {one.experiment: experiment_status(fleets[one.experiment], one) for one in running}
    said = server_status(paths)
    lines = server_lines(said, paths.logs)
    said["experiments"] = experiments
    for name, found in experiments.items():
        lines += [f"\nexperiment {name}"] if len(running) > 1 else []
        lines += status_lines(found)
    if len(running) == 1:
        said |= next(iter(experiments.values()))
    say(said, as_json, "\n".join(lines))


@app.command(epilog="Example:  mcoe-server forget w1 --rollback-before")
@told
def forget(
    client: Annotated[str, typer.Argument(help="Pseudonymous id of a client.")],
    rollback_before: Annotated[
        bool, typer.Option("--rollback-before", help="Release again the newest model without its updates.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the models that its updates went into.")] = False,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Delete what is kept of a client, and issue the receipt, which DIR/receipts keeps.

    What models learned from its updates cannot be taken out of them. Where there are such models, say whether the fleet
    goes back behind them.
    """
    if rollback_before and keep:
        raise SettingsError(["--rollback-before and --keep exclude each other; nothing was deleted"])
    choice: Forgetting | None = "rollback-before" if rollback_before else "keep" if keep else None
    _, _, fleet = opened(folder, experiment)
    try:
        receipt = fleet.forget(client, choice)
    except DecisionNeeded:
        if not sys.stdin.isatty():
            raise
        receipt = fleet.forget(client, _ask_forgetting(client, fleet.registry.outlook(client)))
    rows = sum(receipt.deleted.values())
    lines = [f"deleted {rows} rows of {client}"]
    if receipt.descendants:
        lines.append(f"versions that learned from it: {', '.join(str(model.version) for model in receipt.descendants)}")
        if receipt.choice == "keep":
            lines.append("they are kept as they are")
        elif receipt.released:
            lines.append(f"version {receipt.released} is the newest one without it, released again")
        else:
            lines.append("the newest version is none of them")
    if receipt.pending:
        lines.append(f"round {receipt.pending[0].number} goes on without it")
    say(receipt.plain(), as_json, "\n".join(lines))


def _ask_forgetting(client: str, outlook: Outlook) -> Forgetting:
    """The operator's choice, at a terminal."""
    versions = ", ".join(str(model.version) for model in outlook.descendants)
    print(f"the updates of {client} went into version {versions}; that cannot be taken out of them", file=sys.stderr)
    back = outlook.before and typer.confirm(f"release version {outlook.before.version} again instead?", err=True)
    if not back and not typer.confirm("keep them, and delete everything else of the client?", err=True):
        raise DecisionNeeded("nothing was deleted")
    return "rollback-before" if back else "keep"


def _check_private(settings: ServerSettings, enrolled: int) -> None:
    """Raises SettingsError with everything that would make the epsilons of private rounds untrue."""
    faults = assumption_faults(
        rule=PrivateMean.name,
        router=settings.router,
        all_experts_sent=True,
        norm_bound_learned=False,
        router_statistics_released=False,
        losses_released=False,
        first_k=settings.first_replies > 0,
        delta=settings.private_delta,
        clients=max(1, enrolled),
    )
    if settings.keep_updates:
        faults.append("keep_updates must be off: kept updates carry no noise")
    if faults:
        raise SettingsError(faults)


if __name__ == "__main__":
    sys.exit(app())
