"""What every part of the registry shares: the engine, the experiment, transactions, and the audit trail."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.registry.tables import AuditEvent, Client

#: How a transaction becomes the only one that writes, by dialect: the number is the registry's and no other lock's.
_LOCKS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7020815930)"}


@dataclass(frozen=True)
class EventRow:
    """Something that was done; ``client_id`` is None when it concerned no client, or one that is forgotten."""

    time: datetime.datetime
    kind: str
    client_id: str | None
    detail: str


def utc_now() -> datetime.datetime:
    """The time that rows carry."""
    return datetime.datetime.now(datetime.UTC)


class Store:
    """One experiment's view of the registry database.

    ``coarse``: once a round is over, its router statistics are kept in bins (`server/registry/coarse.py`).
    ``private``: once a round is over, nothing is kept that says more of a client than its noised model does
    (`server.privacy_accounting.withheld`).
    """

    def __init__(self, engine: Engine, experiment: str, coarse: bool = False, private: bool = False) -> None:
        self.engine = engine
        self.experiment = experiment
        self.coarse = coarse
        self.private = private

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """One state of the database for everything that is read, whatever other processes write meanwhile."""
        with Session(self.engine) as session:
            if self.engine.dialect.name == "sqlite":
                session.connection().exec_driver_sql("BEGIN")
            else:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """One transaction. From its first read on nobody else writes, so that what it read stays true."""
        with Session(self.engine) as session, session.begin():
            session.connection().exec_driver_sql(_LOCKS[self.engine.dialect.name])
            yield session

    def audit(self, kind: str, client_id: str | None, detail: str) -> None:
        """Record that something was done. ``detail`` must not name a client: it outlives the client's rows.

        Nor does the event name one that was forgotten meanwhile.
        """
        with self._writing() as session:
            known = client_id is not None and session.get(Client, client_id) is not None
            self._audit(session, kind, client_id if known else None, detail)

    def events(self, limit: int, client_id: str | None = None, kind: str = "") -> list[EventRow]:
        """The newest events of the experiment, newest first: of one client, if named, whose kind holds this text."""
        query = select(AuditEvent).where(AuditEvent.experiment == self.experiment)
        query = query.where(AuditEvent.kind.contains(kind, autoescape=True))
        if client_id is not None:
            query = query.where(AuditEvent.client_id == client_id)
        with self._reading() as session:
            found = session.scalars(query.order_by(AuditEvent.id.desc()).limit(limit))
            return [EventRow(event.time, event.kind, event.client_id, event.detail) for event in found]

    def _audit(self, session: Session, kind: str, client_id: str | None, detail: str = "") -> None:
        session.add(
            AuditEvent(experiment=self.experiment, time=utc_now(), kind=kind, client_id=client_id, detail=detail)
        )
