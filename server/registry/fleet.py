"""Clients: invitation, enrolment, check-ins, revocation. A client is in one experiment."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.protocol import CheckIn
from server.registry.store import Store, utc_now
from server.registry.tables import CheckInRow, Client, Member, Reply

ClientState = Literal["invited", "enrolled", "revoked", "withdrawn"]
INVITED, ENROLLED, REVOKED, WITHDRAWN = get_args(ClientState)

_KEY_TAKEN = "this key is enrolled already; make the device a new one"


@dataclass(frozen=True)
class ClientRow:
    """One client as stored. Fields that a check-in or an enrolment fills are None before it.

    ``rounds`` counts the rounds that asked it, ``accepted`` and ``rejected`` its replies.
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
    rounds: int
    accepted: int
    rejected: int


class FleetStore(Store):
    """The registry's clients."""

    def invite(self, client_id: str, token_sha256: str, expires: datetime.datetime) -> None:
        """Expect a client that will show the token with this hash. A repeat replaces the token.

        Raises EnrolmentRefused for a client that is enrolled, or known to another experiment.
        """
        with self._writing() as session:
            client = session.get(Client, client_id)
            if client is None:
                client = Client(id=client_id, experiment=self.experiment)
                session.add(client)
            elif client.experiment != self.experiment:
                raise self._elsewhere(client)
            elif client.state == ENROLLED:
                raise EnrolmentRefused(f"client {client_id} is enrolled; revoke it before it is invited again")
            client.state, client.token_sha256, client.token_expires = INVITED, token_sha256, expires
            self._audit(session, "client invited", client_id)

    def enrol(self, token_sha256: str, public_key: str, node_id: int | None) -> str:
        """Exchange a token, which is gone afterwards, for enrolment under this key; returns the client's id.

        ``node_id`` is None as long as Flower does not know the key; `set_node` names it later.
        Raises EnrolmentRefused for a token that is unknown, used or expired, and for a key that is enrolled already.
        """
        with self._writing() as session:
            invited = session.scalars(
                select(Client)
                .where(Client.token_sha256 == token_sha256, Client.experiment == self.experiment)
                .with_for_update()
            ).first()
            if invited is None or invited.token_expires is None:
                raise EnrolmentRefused("this invitation is unknown or was used before; ask the operator for a new one")
            if invited.token_expires <= utc_now():
                raise EnrolmentRefused("this invitation has expired; ask the operator for a new one")
            invited.state, invited.token_sha256, invited.token_expires = ENROLLED, None, None
            self._set_key(session, invited, public_key, node_id)
            self._audit(session, "client enrolled", invited.id)
            return invited.id

    def add_client(self, client_id: str, public_key: str, node_id: int | None) -> None:
        """Enrol a client without a token. Raises EnrolmentRefused when the client is known or its key enrolled."""
        with self._writing() as session:
            if session.get(Client, client_id) is not None:
                raise EnrolmentRefused(f"client {client_id} is known already; revoke it and invite it again")
            client = Client(id=client_id, experiment=self.experiment, state=ENROLLED)
            session.add(client)
            self._set_key(session, client, public_key, node_id)
            self._audit(session, "client enrolled", client_id)

    def client_of_node(self, node_id: int) -> str | None:
        """The enrolled client of this experiment behind one of Flower's node ids, or None."""
        query = select(Client.id).where(
            Client.node_id == node_id, Client.experiment == self.experiment, Client.state == ENROLLED
        )
        with self._reading() as session:
            return session.scalars(query).first()

    def set_node(self, client_id: str, node_id: int) -> None:
        """Note that Flower knows a client under a new node id. Raises DataMissing, EnrolmentRefused for a taken id."""
        with self._writing() as session:
            client = self._client(session, client_id)
            client.node_id = node_id
            self._flush(session, f"node {node_id} belongs to another client")
            self._audit(session, "client registered", client_id)

    def revoke(self, client_id: str) -> None:
        """End a client's enrolment, or its invitation, on the operator's word. Raises DataMissing."""
        self._end(client_id, REVOKED)

    def withdraw(self, client_id: str) -> None:
        """End a client's enrolment on its own word. Its rows stay until it is forgotten. Raises DataMissing."""
        self._end(client_id, WITHDRAWN)

    def rename(self, client_id: str, alias: str | None) -> None:
        """Set the operator's word for a client. Raises DataMissing."""
        with self._writing() as session:
            self._client(session, client_id).alias = alias

    def saw(self, check_in: CheckIn) -> None:
        """Record a check-in. A client that nobody enrolled, as in a simulation, is enrolled without a key.

        Raises EnrolmentRefused for a client of another experiment.
        """
        now = utc_now()
        with self._writing() as session:
            client = session.get(Client, check_in.client_id)
            if client is None:
                client = Client(id=check_in.client_id, experiment=self.experiment, state=ENROLLED)
                session.add(client)
            elif client.experiment != self.experiment:
                raise self._elsewhere(client)
            client.first_seen = client.first_seen or now
            client.last_seen = now
            client.examples, client.client_version = check_in.examples, check_in.client_version
            session.flush()
            session.add(
                CheckInRow(
                    client_id=client.id, time=now, examples=client.examples, client_version=client.client_version
                )
            )

    def clients(self) -> list[ClientRow]:
        """Every client of the experiment, by id."""
        return self._rows()

    def client(self, client_id: str) -> ClientRow:
        """One client of the experiment. Raises DataMissing."""
        found = self._rows(client_id)
        if not found:
            raise self._unknown(client_id)
        return found[0]

    def _rows(self, client_id: str | None = None) -> list[ClientRow]:
        asked = select(func.count()).where(Member.client_id == Client.id).scalar_subquery()
        replies = select(func.count()).where(Reply.client_id == Client.id)
        accepted = replies.where(Reply.accepted).scalar_subquery()
        rejected = replies.where(~Reply.accepted).scalar_subquery()
        query = select(Client, asked, accepted, rejected).where(Client.experiment == self.experiment)
        if client_id is not None:
            query = query.where(Client.id == client_id)
        with self._reading() as session:
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
                    *counts,
                )
                for client, *counts in session.execute(query.order_by(Client.id))
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

    def _end(self, client_id: str, state: ClientState) -> None:
        with self._writing() as session:
            client = self._client(session, client_id)
            client.state, client.token_sha256, client.token_expires = state, None, None
            self._audit(session, f"client {state}", client_id)

    def _set_key(self, session: Session, client: Client, public_key: str, node_id: int | None) -> None:
        client.public_key, client.node_id = public_key, node_id
        self._flush(session, _KEY_TAKEN)

    def _flush(self, session: Session, taken: str) -> None:
        try:
            session.flush()
        except IntegrityError as fault:
            raise EnrolmentRefused(taken) from fault
