"""Clients: what is known of each, and by which names. A client is in one experiment."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.health import Health
from server.registry.health import health_of
from server.registry.store import Store
from server.registry.tables import ENROLLED, Client, ClientState, ConsentRow, Member, Reply


@dataclass(frozen=True)
class ConsentGiven:
    """A consent as stored; ``withdrawn`` is None while it holds."""

    kind: str
    version: str
    given: datetime.datetime
    withdrawn: datetime.datetime | None


@dataclass(frozen=True)
class ClientRow:
    """One client as stored. Fields that a check-in or an enrolment fills are None before it.

    ``rounds`` counts the rounds that asked it, ``accepted`` and ``rejected`` its replies. ``health`` was
    said on ``health_day``, counted from 1970.
    """

    id: str
    alias: str | None
    experiment: str
    state: ClientState
    public_key: str | None
    node_id: int | None
    token_expires: datetime.datetime | None
    first_seen: datetime.datetime | None
    last_seen: datetime.datetime | None
    examples: int | None
    client_version: str | None
    preset: str | None
    capabilities: tuple[str, ...]
    standing: str | None
    next_check_in: datetime.datetime | None
    rounds: int
    accepted: int
    rejected: int
    consents: tuple[ConsentGiven, ...]
    health: Health | None
    health_day: int | None


class ClientStore(Store):
    """The registry's clients."""

    def clients(self) -> list[ClientRow]:
        """Every client of the experiment, by id."""
        return self._rows()

    def client(self, client_id: str) -> ClientRow:
        """One client of the experiment. Raises DataMissing."""
        found = self._rows(client_id)
        if not found:
            raise self._unknown(client_id)
        return found[0]

    def enrolled(self) -> frozenset[str]:
        """The experiment's enrolled clients, by id."""
        with self._reading() as session:
            return enrolled_of(session, self.experiment)

    def among(self, patterns: str) -> frozenset[str]:
        """The clients whose id or alias fits one of these patterns, separated by commas; ``*`` fits every one."""
        wanted = [pattern.strip() for pattern in patterns.split(",")]
        query = select(Client.id, Client.alias).where(Client.experiment == self.experiment)
        with self._reading() as session:
            known = session.execute(query).all()
        return frozenset(
            row[0] for row in known if any(fnmatchcase(name, pattern) for name in row if name for pattern in wanted)
        )

    def rename(self, client_id: str, alias: str | None) -> None:
        """Set the operator's word for a client. Raises DataMissing."""
        with self._writing() as session:
            self._client(session, client_id).alias = alias

    def _rows(self, client_id: str | None = None) -> list[ClientRow]:
        asked = select(func.count()).where(Member.client_id == Client.id).scalar_subquery()
        replies = select(func.count()).where(Reply.client_id == Client.id)
        accepted = replies.where(Reply.accepted).scalar_subquery()
        rejected = replies.where(~Reply.accepted).scalar_subquery()
        query = select(Client, asked, accepted, rejected).where(Client.experiment == self.experiment)
        consented = select(ConsentRow).join(Client, Client.id == ConsentRow.client_id)
        consented = consented.where(Client.experiment == self.experiment).order_by(ConsentRow.id)
        if client_id is not None:
            query, consented = query.where(Client.id == client_id), consented.where(Client.id == client_id)
        with self._reading() as session:
            health = health_of(session, self.experiment, client_id)
            consents: dict[str, list[ConsentGiven]] = {}
            for row in session.scalars(consented):
                consent = ConsentGiven(row.kind, row.version, row.given, row.withdrawn)
                consents.setdefault(row.client_id, []).append(consent)
            return [
                ClientRow(
                    client.id,
                    client.alias,
                    client.experiment,
                    client.state,
                    client.public_key,
                    client.node_id,
                    client.token_expires,
                    client.first_seen,
                    client.last_seen,
                    client.examples,
                    client.client_version,
                    client.preset,
                    tuple((client.capabilities or "").split()),
                    client.standing,
                    client.next_check_in,
                    rounds,
                    fit,
                    unfit,
                    tuple(consents.get(client.id, ())),
                    *health.get(client.id, (None, None)),
                )
                for client, rounds, fit, unfit in session.execute(query.order_by(Client.id))
            ]

    def _client(self, session: Session, client_id: str) -> Client:
        client = session.get(Client, client_id)
        if client is None or client.experiment != self.experiment:
            raise self._unknown(client_id)
        return client

    def _unknown(self, client_id: str) -> DataMissing:
        return DataMissing(f"experiment {self.experiment} has no client {client_id}")

    def _elsewhere(self, client: Client) -> EnrolmentRefused:
        return EnrolmentRefused(f"client {client.id} is in experiment {client.experiment}, not in {self.experiment}")


def enrolled_of(session: Session, experiment: str) -> frozenset[str]:
    """An experiment's enrolled clients, as they are in this transaction."""
    query = select(Client.id).where(Client.experiment == experiment, Client.state == ENROLLED)
    return frozenset(session.scalars(query))
