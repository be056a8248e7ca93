"""Looking after a server: doctor, backup, restore, db upgrade, certificates."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mcoe_model.errors import DataInvalid, DataMissing, PortInUse
from server.backup import backup as make_backup
from server.backup import restore as put_back
from server.certificates import (
    NEXT,
    begin_rotation,
    days_left,
    fingerprint,
    finish_rotation,
    make_server_certificate,
    names_of,
    read_certificate,
)
from server.cli.common import DEFAULT_FOLDER, AsJson, Folder, say, show, told
from server.doctor import CHECKS, Finding, Premises, examine
from server.lock import is_held
from server.paths import ServerPaths
from server.ports import check_free
from server.registry.database import connect, open_database, schema_of
from server.settings import ServerSettings
from server.settings_file import load_experiments

_TAKEN_UP = "a running server takes it up within seconds, by starting its SuperLink again"
#: Days before its end at which a certificate is warned of.
WARN_DAYS = 30

db = typer.Typer(
    no_args_is_help=True, help="The registry's database.",
    epilog="Example:  mcoe-server db upgrade --dir fleet",
)
certificates = typer.Typer(
    no_args_is_help=True, help="The server's certificate.",
    epilog="Example:  mcoe-server certificates renew --dir fleet",
)


def settled(folder: Path) -> tuple[ServerPaths, tuple[ServerSettings, ...]]:
    """Paths, and the settings of every experiment, without opening the registry."""
    paths = ServerPaths(folder.absolute())
    return paths, load_experiments(paths, {})


@told
def doctor(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Look for what is wrong with the data, the certificates, the disk and the ports, and say how to mend each."""
    paths, settings = settled(folder)

    def check_certificates(premises: Premises) -> Iterator[Finding]:
        for name, mend in (
            ("server.crt", f"mcoe-server certificates renew --dir {folder}"),
            ("ca.crt", f"mcoe-server certificates rotate-authority --dir {folder}"),
        ):
            try:
                left = days_left(read_certificate(paths.certificates / name), premises.now)
            except (DataMissing, DataInvalid) as fault:
                yield Finding("error", str(fault), "restore the folder certificates/ from your copy of it")
                continue
            if left < WARN_DAYS:
                what = f"{name} ends in {left:.0f} days" if left > 0 else f"{name} has ended"
                yield Finding("warning" if left > 0 else "error", what, mend)

    def check_ports(premises: Premises) -> Iterator[Finding]:
        if is_held(paths.running_lock):
            return  # the ports are its own
        shared = settings[0]
        for name, host in (("port", shared.host), ("local_port", "127.0.0.1"), ("dashboard_port", "127.0.0.1")):
            port = getattr(shared, name)
            try:
                if port:
                    check_free(host, port)
            except PortInUse:
                mend = f"`ss -ltnp 'sport = :{port}'` says who listens there: end it, or set another {name} in"
                what = f"{name} {port} cannot be had at {host}; the server would not start"
                yield Finding("error", what, f"{mend} {paths.settings.name}")

    with closing(_Engine(paths.database_url(settings[0].database))) as engine:
        now = datetime.datetime.now(datetime.UTC)
        spools = {one.experiment: paths.spool_of(one.experiment) for one in settings}
        premises = Premises(engine.engine, paths.models, spools, now, settings[0].disk_floor_mb << 20)
        found = examine(premises, (*CHECKS, check_certificates, check_ports))
    show(found, as_json, ("severity", "what", "mend"), "nothing found")
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(1)


@told
def backup(
    target: Annotated[Path, typer.Argument(help="New folder for the backup.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Copy the registry and the models that it names, while the server runs. Keep certificates/ in a safe place too."""
    paths, settings = settled(folder)
    make_backup(paths.database_url(settings[0].database), paths.models, target)
    say({"backup": str(target)}, as_json, f"the registry and its models are in {target}")


@told
def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `mcoe-server backup` wrote.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Put a backup into a server without a registry: a new one from init, or one that lost it."""
    paths, settings = settled(folder)
    put_back(source, paths.database_url(settings[0].database), paths.models)
    say({"restored": str(source)}, as_json, f"restored {source}; next: mcoe-server doctor --dir {folder}")


@db.command(epilog="Example:  mcoe-server db upgrade")
@told
def upgrade(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Bring the registry to this program's schema, in one transaction. Make a backup first."""
    paths, settings = settled(folder)
    url = paths.database_url(settings[0].database)
    with closing(_Engine(url)) as before:
        was = schema_of(before.engine).current
    engine = open_database(url)
    now = schema_of(engine).current
    engine.dispose()
    text = f"the registry has schema {now}" + ("" if was == now else f", it had {was or 'none'}")
    say({"was": was, "schema": now}, as_json, text)


@certificates.command(epilog="Example:  mcoe-server certificates renew --name fleet.example.org")
@told
def renew(
    name: Annotated[list[str] | None, typer.Option(help="A further host name or address of the server.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """A new server certificate for the names of the old one, from the same authority: no wearable has to do anything.

    A running server starts its SuperLink again with it, by itself.
    """
    paths, _ = settled(folder)
    before = names_of(read_certificate(paths.certificates / "server.crt"))
    make_server_certificate(paths.certificates, list(dict.fromkeys([*(name or []), *before])))
    left = days_left(read_certificate(paths.certificates / "server.crt"), datetime.datetime.now(datetime.UTC))
    say({"days": round(left)}, as_json, f"the new certificate lasts {left:.0f} days; {_TAKEN_UP}")


@certificates.command("rotate-authority", epilog="Example:  mcoe-server certificates rotate-authority")
@told
def rotate_authority(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Make the authority that will take this one's place. From now on wearables are told of both, and trust both.

    Finish when every wearable has been there for a day: who has not must enrol again.
    """
    paths, _ = settled(folder)
    begin_rotation(paths.certificates)
    new = fingerprint(read_certificate(paths.certificates / f"{NEXT}.crt"))
    text = (
        f"wearables are told of the new authority ({new[:12]}) within an hour of being there; when they have: "
        "mcoe-server certificates finish-rotation"
    )
    say({"fingerprint": new}, as_json, text)


@certificates.command("finish-rotation", epilog="Example:  mcoe-server certificates finish-rotation")
@told
def finish(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Let the new authority take the old one's place: the server gets a certificate of it, and the old one is deleted.

    Invitations that were not used name the old authority: invite those wearables again.
    """
    paths, _ = settled(folder)
    finish_rotation(paths.certificates)
    new = fingerprint(read_certificate(paths.certificates / "ca.crt"))
    text = f"the fleet's authority is {new[:12]} now; {_TAKEN_UP}. Copy certificates/ to its safe place again"
    say({"fingerprint": new}, as_json, text)


class _Engine:
    """A connection to a database as it is, without migrating it."""

    def __init__(self, url: str) -> None:
        self.engine = connect(url)

    def close(self) -> None:
        self.engine.dispose()
