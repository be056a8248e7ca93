"""A study's runs, one row each: what was asked, how far it is, what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from mcoe_model.errors import NotResumable

WAITS, DONE, FAILED = "waits", "done", "failed"


class _Base(DeclarativeBase):
    pass


class RunRow(_Base):
    """One run of the study. ``command`` is a JSON list; ``summary`` is what the command printed with `--json`."""

    __tablename__ = "runs"

    name: Mapped[str] = mapped_column(primary_key=True)
    command: Mapped[str]
    state: Mapped[str] = mapped_column(default=WAITS)
    seconds: Mapped[float | None]
    summary: Mapped[str | None]
    fault: Mapped[str | None]

    @property
    def found(self) -> dict[str, Any]:
        """The summary of a run that is done."""
        return dict(json.loads(self.summary or "{}"))


class StudyRegistry:
    """The rows of a study's runs, in a SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine: Engine = create_engine(f"sqlite:///{path}")
        _Base.metadata.create_all(self._engine)

    def declare(self, commands: dict[str, list[str]]) -> None:
        """Add the runs that are new. Raises NotResumable when one that is there was declared otherwise."""
        with Session(self._engine) as session, session.begin():
            for name, command in commands.items():
                row = session.get(RunRow, name)
                if row is None:
                    session.add(RunRow(name=name, command=json.dumps(command)))
                elif json.loads(row.command) != command:
                    raise NotResumable(f"run {name} was made by another command ({row.command}); use another --out")

    def rows(self, names: Sequence[str]) -> dict[str, RunRow]:
        """The rows with these names."""
        with Session(self._engine, expire_on_commit=False) as session:
            found = {row.name: row for row in session.scalars(select(RunRow)) if row.name in names}
        return {name: found[name] for name in names}

    def done(self, name: str, seconds: float, summary: dict[str, Any]) -> None:
        """Record what a run found; a run that went on after a stop has taken both times."""
        with Session(self._engine) as session, session.begin():
            row = session.get_one(RunRow, name)
            row.state, row.summary, row.fault = DONE, json.dumps(summary), None
            row.seconds = (row.seconds or 0.0) + seconds

    def failed(self, name: str, seconds: float, fault: str) -> None:
        """Record why a run ended without a summary; it is tried again when the study is started again."""
        with Session(self._engine) as session, session.begin():
            row = session.get_one(RunRow, name)
            row.state, row.fault, row.seconds = FAILED, fault, (row.seconds or 0.0) + seconds
