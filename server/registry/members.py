"""Members: which key is whose, from the invitation until its client leaves."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcoe_model.consent import Consent
from mcoe_model.errors import EnrolmentRefused
from server.registry.clients import ClientStore
from server.registry.privacy import descendants_of
from server.registry.store import utc_now
from server.registry.tables import (
    CLOSED,
    ENROLLED,
    INVITED,
    LOST,
    OPEN,
    REPORTED,
    REVOKED,
    WITHDRAWN,
    Client,
    ClientState,
    ConsentRow,
    LostKey,
    Reply,
    Round,
    RouterRow,
)

_HOLDERS = select(Client.id, Client.experiment, Client.public_key, Client.node_id)
_MEMBERS = _HOLDERS.where(Client.state == ENROLLED)
_KEY_TAKEN = "this key is enrolled already; make the device a new one"
_KEY_LOST = "the device with this key was reported lost; make it a new one"


@dataclass(frozen=True)
class MemberRow:
    """An enrolled client of any experiment, and the key that it holds."""

    id: str
    experiment: str
    public_key: str
    node_id: int | None


class MemberStore(ClientStore):
    """The registry's members."""

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

    def enrol(
        self, token_sha256: str, public_key: str, node_id: int | None, consents: Sequence[Consent] = ()
    ) -> str:
        """Exchange a token, which is gone afterwards, for enrolment under this key; returns the client's id.

        ``node_id`` is None as long as Flower does not know the key; `set_node` names it later.
        Raises EnrolmentRefused for a token that is unknown, used or expired, and for a key that is enrolled already
        or was reported lost.
        """
        with self._writing() as session:
            invited = session.scalars(
                select(Client).where(Client.token_sha256 == token_sha256, Client.experiment == self.experiment)
            ).first()
            if invited is None or invited.token_expires is None:
                raise EnrolmentRefused("this invitation is unknown or was used before; ask the operator for a new one")
            if invited.token_expires <= utc_now():
                raise EnrolmentRefused("this invitation has expired; ask the operator for a new one")
            invited.state, invited.token_sha256, invited.token_expires = ENROLLED, None, None
            self._set_key(session, invited, public_key, node_id)
            self._end_consents(session, invited.id)
            session.add_all(
                ConsentRow(client_id=invited.id, kind=one.kind, version=one.version, given=one.given)
                for one in consents
            )
            self._audit(session, "client enrolled", invited.id)
            return invited.id

    def add_client(self, client_id: str, public_key: str, node_id: int | None) -> None:
        """Enrol a client without a token. Raises EnrolmentRefused for a known client, and for a taken or lost key."""
        with self._writing() as session:
            if session.get(Client, client_id) is not None:
                raise EnrolmentRefused(f"client {client_id} is known already; revoke it and invite it again")
            client = Client(id=client_id, experiment=self.experiment, state=ENROLLED)
            session.add(client)
            self._set_key(session, client, public_key, node_id)
            self._audit(session, "client enrolled", client_id)

    def members(self) -> list[MemberRow]:
        """Whoever is enrolled with a key, in every experiment of the database: they share one SuperLink."""
        with self._reading() as session:
            return [_member(row) for row in session.execute(_MEMBERS.where(Client.public_key.is_not(None)))]

    def member(self, public_key: str) -> MemberRow | None:
        """Whoever is enrolled with this key, in whichever experiment, or None."""
        with self._reading() as session:
            row = session.execute(_MEMBERS.where(Client.public_key == public_key)).first()
            return _member(row) if row else None

    def leaver(self, public_key: str) -> MemberRow | None:
        """The same, also of one that has withdrawn: its rows are here until it is forgotten."""
        query = _HOLDERS.where(Client.state.in_([ENROLLED, WITHDRAWN]), Client.public_key == public_key)
        with self._reading() as session:
            row = session.execute(query).first()
            return _member(row) if row else None

    def ended(self, public_key: str) -> str | None:
        """How the operator ended the enrolment of the device with this key: LOST, REVOKED, or None.

        What was reported lost stays so, whatever became of its client since.
        """
        query = select(Client.state).where(Client.state == REVOKED, Client.public_key == public_key)
        with self._reading() as session:
            return LOST if _is_lost(session, public_key) else session.scalars(query).first()

    def is_expecting(self) -> bool:
        """Whether an invitation is open: not used, not withdrawn, not expired."""
        query = select(Client.id).where(
            Client.experiment == self.experiment, Client.state == INVITED, Client.token_expires > utc_now()
        )
        with self._reading() as session:
            return session.scalars(query.limit(1)).first() is not None

    def experiment_of_token(self, token_sha256: str) -> str | None:
        """The experiment that an invitation is for, None for a token that is unknown or was used."""
        with self._reading() as session:
            return session.scalars(select(Client.experiment).where(Client.token_sha256 == token_sha256)).first()

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

    def revoke(self, client_id: str, lost: bool = False) -> None:
        """End a client's enrolment, or its invitation, on the operator's word: ``lost`` if its device is.

        The key of a lost device is never enrolled again. Raises DataMissing.
        """
        with self._writing() as session:
            key = self._leave(session, client_id, LOST if lost else REVOKED).public_key
            if lost and key is not None:
                session.merge(LostKey(key_sha256=_key_sha256(key)))

    def withdraw(self, client_id: str) -> tuple[str, ...]:
        """End a client's enrolment and consents on its own word; returns the ids of the updates that count no more.

        They are those that were accepted in a round that is not published. Its rows stay until it is forgotten; the
        audit trail has how many models learned from it. Raises DataMissing.
        """
        with self._writing() as session:
            self._leave(session, client_id, WITHDRAWN)
            query = (
                select(Reply)
                .join(Round, Round.id == Reply.round_id)
                .where(Reply.client_id == client_id, Reply.accepted, Round.state.in_([OPEN, CLOSED]))
            )
            discarded = []
            for reply in session.scalars(query).all():
                discarded.append(str(reply.update_id))
                reply.accepted, reply.reason = False, "the client has withdrawn"
                for column in (*REPORTED, "update_id"):
                    setattr(reply, column, None)
                routing = RouterRow.round_id == reply.round_id, RouterRow.client_id == client_id
                session.execute(delete(RouterRow).where(*routing))
            return tuple(discarded)

    def _leave(self, session: Session, client_id: str, state: ClientState) -> Client:
        client = self._client(session, client_id)
        client.state, client.token_sha256, client.token_expires = state, None, None
        detail = ""
        if state == WITHDRAWN:
            self._end_consents(session, client_id)
            if learned := len(descendants_of(session, client_id)):
                detail = f"{learned} models descend from its updates"
        self._audit(session, f"client {state}", client_id, detail)
        return client

    def _end_consents(self, session: Session, client_id: str) -> None:
        given = update(ConsentRow).where(ConsentRow.client_id == client_id, ConsentRow.withdrawn.is_(None))
        session.execute(given.values(withdrawn=utc_now()))

    def _set_key(self, session: Session, client: Client, public_key: str, node_id: int | None) -> None:
        if _is_lost(session, public_key):
            raise EnrolmentRefused(_KEY_LOST)
        client.public_key, client.node_id = public_key, node_id
        self._flush(session, _KEY_TAKEN)

    def _flush(self, session: Session, taken: str) -> None:
        try:
            session.flush()
        except IntegrityError as fault:
            raise EnrolmentRefused(taken) from fault


def _member(row: Row[str, str, str | None, int | None]) -> MemberRow:
    return MemberRow(row[0], row[1], str(row[2]), row[3])


def _is_lost(session: Session, public_key: str) -> bool:
    return session.get(LostKey, _key_sha256(public_key)) is not None


def _key_sha256(public_key: str) -> str:
    return hashlib.sha256(public_key.encode()).hexdigest()
