"""What is wrong with a server's data, and how to mend it. It looks and changes nothing.

A check is a function from the data to its findings. `CHECKS` are those of the registry, the artifacts and the spool;
others (certificates, ports) are given to `examine` beside them, as functions that know what they look at.
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
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

Severity = Literal["note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """``note``: nothing to do. ``warning``: the server works. ``error``: it does not, or data are lost."""

    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Premises:
    """The data of one experiment: where they are, the time now, and the least free bytes on their disk."""

    engine: Engine
    experiment: str
    artifacts: Path
    spool: Path
    now: datetime.datetime
    disk_floor: int = DISK_FLOOR


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
    """Models whose file is missing or damaged, and files that no model names."""
    with premises.engine.connect() as connection:
        rows = connection.execute(select(Model.sha256, Model.experiment, Model.version).order_by(Model.id)).all()
    models: dict[str, list[str]] = {}
    for sha256, experiment, version in rows:
        models.setdefault(sha256, []).append(f"version {version} of {experiment}")
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
    registry = Registry(premises.engine, premises.experiment)
    current = registry.unfinished_round()
    if current:
        again = "restore the spool, or abandon the round, so that its clients train again"
        for contribution in registry.contributions(current.id):
            try:
                open_update(premises.spool / current.spool_name, contribution.update_id)
            except McoeError as fault:
                yield Finding("error", f"round {current.number}: {fault}", again)
    for folder in sorted(premises.spool.glob("*")):
        if current is None or folder.name != current.spool_name:
            mend = "the coordinator removes it when it starts" if _is_round(folder) else f"delete it: rm -r '{folder}'"
            yield Finding("warning", f"{folder} belongs to no round under way", mend)


def check_clock(premises: Premises) -> Iterator[Finding]:
    """Rows from the future: this clock is behind, or was ahead when they were written."""
    limit = premises.now + datetime.timedelta(seconds=CLOCK_TOLERANCE)
    with premises.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                if not isinstance(column.type, UtcTime) or column.name == "token_expires":
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
    for folder in (premises.artifacts, premises.spool):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        if free < premises.disk_floor:
            what = f"{free / 1e9:.1f} GB are free for {folder}, {premises.disk_floor / 1e9:.1f} GB are needed"
            yield Finding("error", what, "free some space; no round is opened before")


#: Every check of the data, the schema's first: the others read its tables.
CHECKS: tuple[Check, ...] = (check_schema, check_artifacts, check_spool, check_clock, check_size)


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
