"""What is wrong with a server's data, and how to mend it. It looks and changes nothing.

A check is a function from the data to its findings. `CHECKS` are those of the registry, the artifacts and the spool;
others (certificates, ports) are given to `examine` beside them, as functions that know what they look at.
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, func, select, text

from mcoe_model.errors import McoeError
from mcoe_model.model_file import file_sha256
from server.registry import Registry
from server.registry.columns import UtcTime
from server.registry.database import schema_of
from server.registry.tables import Base, Model
from server.spool import open_update

#: Bytes that must be free on the disk of the artifacts and the spool before a round is opened.
DISK_FLOOR = 1 << 30
#: How far in the future a row's time may lie before a clock is called wrong, in seconds.
CLOCK_TOLERANCE = 60
#: Columns whose times lie in the future as they should.
EXPECTED = frozenset({"token_expires", "next_check_in", "ends"})

#: File systems of other machines, whose locks SQLite cannot rely on.
REMOTE = frozenset({"9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"})

Severity = Literal["note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """``note``: nothing to do. ``warning``: the server works. ``error``: it does not, or data are lost."""

    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Premises:
    """The data of a server: where they are, the time now, and the least free bytes on their disk.

    ``spools`` holds the spool of each experiment; ``mounts`` lists the file systems, where the machine has such a file.
    """

    engine: Engine
    artifacts: Path
    spools: Mapping[str, Path]
    now: datetime.datetime
    disk_floor: int = DISK_FLOOR
    mounts: Path = Path("/proc/self/mounts")


Check = Callable[[Premises], Iterator[Finding]]


def check_schema(premises: Premises) -> Iterator[Finding]:
    """Whether the database has this program's schema."""
    schema = schema_of(premises.engine)
    if schema.current is None:
        yield Finding("error", "the database holds no registry", "check its address; `mcoe-server init` makes one")
    elif schema.current not in schema.known:
        yield Finding("error", f"the registry has schema {schema.current}, which is newer", "update the program")
    elif schema.current != schema.known[-1]:
        what = f"the registry has schema {schema.current}, this program needs {schema.known[-1]}"
        yield Finding("error", what, "run `mcoe-server db upgrade`")


def check_artifacts(premises: Premises) -> Iterator[Finding]:
    """Models and moments whose file is missing or damaged, and files that no model names."""
    with premises.engine.connect() as connection:
        columns = (Model.sha256, Model.moments_sha256, Model.experiment, Model.version)
        rows = connection.execute(select(*columns).order_by(Model.id)).all()
    models: dict[str, list[str]] = {}
    for sha256, moments, experiment, version in rows:
        models.setdefault(sha256, []).append(f"version {version} of {experiment}")
        if moments is not None:
            models.setdefault(moments, []).append(f"the optimiser's moments of version {version} of {experiment}")
    for sha256, names in models.items():
        path = premises.artifacts / f"{sha256}.safetensors"
        restore = f"copy {path.name} from a backup; or hold the model and roll back to an older version"
        if not path.is_file():
            yield Finding("error", f"{path} is missing: {', '.join(names)}", restore)
        elif file_sha256(path) != sha256:
            yield Finding("error", f"{path} is damaged: {', '.join(names)}", restore)
    for path in sorted(premises.artifacts.glob("*")):
        if path.stem not in models or path.suffix != ".safetensors":
            yield Finding(
                "warning",
                f"{path} belongs to no model",
                f"unless a round is being published right now, delete it: rm '{path}'",
            )


def check_spool(premises: Premises) -> Iterator[Finding]:
    """Accepted updates of the round under way that are missing or torn, and what is left of rounds that are over."""
    for experiment, spool in premises.spools.items():
        yield from _check_spool(Registry(premises.engine, experiment), spool)


def _check_spool(registry: Registry, spool: Path) -> Iterator[Finding]:
    current = registry.unfinished_round()
    if current:
        again = "nothing to do: the round is abandoned when it ends, and its clients send or learn again"
        for contribution in registry.contributions(current.id):
            try:
                open_update(spool / current.spool_name, contribution.update_id)
            except McoeError as fault:
                yield Finding("error", f"{registry.experiment}, round {current.number}: {fault}", again)
    kept = {past.spool_name for past in registry.rounds() if past.settings.get("keep_updates")}
    needed = kept | ({current.spool_name} if current else set())
    for folder in sorted(spool.glob("*")):
        if folder.name not in needed:
            mend = "the coordinator removes it when it starts" if _is_round(folder) else f"delete it: rm -r '{folder}'"
            yield Finding("warning", f"{folder} belongs to no round under way", mend)


def check_clock(premises: Premises) -> Iterator[Finding]:
    """Rows from the future: this clock is behind, or was ahead when they were written."""
    limit = premises.now + datetime.timedelta(seconds=CLOCK_TOLERANCE)
    with premises.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                if not isinstance(column.type, UtcTime) or column.name in EXPECTED:
                    continue
                query = select(func.count(), func.max(column)).where(column > limit)
                count, latest = connection.execute(query).one()
                if count:
                    yield Finding(
                        "warning",
                        f"{count} rows of {table.name} lie in the future, the latest at {latest:%Y-%m-%d %H:%M:%S} UTC",
                        "set this machine's clock (timedatectl set-ntp true); the rows mend themselves with time",
                    )


def check_size(premises: Premises) -> Iterator[Finding]:
    """How large the database is, and whether the disk has room for another round."""
    with premises.engine.connect() as connection:
        if premises.engine.dialect.name == "sqlite":
            size = connection.scalar(text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))
        else:
            size = connection.scalar(text("SELECT pg_database_size(current_database())"))
    yield Finding("note", f"the registry takes {(size or 0) / 1e6:.1f} MB", "nothing to do")
    for folder in (premises.artifacts, *sorted({spool.parent for spool in premises.spools.values()})):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        if free < premises.disk_floor:
            what = f"{free / 1e9:.1f} GB are free for {folder}, {premises.disk_floor / 1e9:.1f} GB are needed"
            yield Finding("error", what, "free some space; no round is opened before")


def check_file_system(premises: Premises) -> Iterator[Finding]:
    """SQLite on another machine's disk: the registry, and Flower's database, which lies beside the models."""
    places = {premises.artifacts.absolute().parent}
    if premises.engine.dialect.name == "sqlite" and premises.engine.url.database:
        places.add(Path(premises.engine.url.database).absolute().parent)
    for place in sorted(places):
        kind = _file_system(place, premises.mounts)
        if kind in REMOTE:
            what = f"{place} lies on {kind}, where SQLite may lose what it wrote: locks do not hold"
            yield Finding("error", what, "move the data folder to a local disk while the server is down")


def _file_system(place: Path, mounts: Path) -> str:
    """The type of the file system that a folder lies on; empty where that cannot be found out."""
    lines = [line.split() for line in mounts.read_text().splitlines()] if mounts.exists() else []
    found = [(Path(fields[1].replace("\\040", " ")), fields[2]) for fields in lines if len(fields) > 2]
    over = [(len(point.parts), index, kind) for index, (point, kind) in enumerate(found) if place.is_relative_to(point)]
    return max(over)[2] if over else ""


#: Every check of the data, the schema's first: the others read its tables.
CHECKS: tuple[Check, ...] = (check_schema, check_artifacts, check_spool, check_clock, check_size, check_file_system)


def examine(premises: Premises, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Everything that the checks find, in their order. After a wrong schema nothing else can be looked at."""
    found: list[Finding] = []
    for check in checks:
        found += check(premises)
        if check is check_schema and found:
            break
    return found


def _is_round(folder: Path) -> bool:
    return re.fullmatch(r"round-\d+-\d+", folder.name) is not None
