"""Clients: invitation, enrolment, check-ins, revocation. A client is in one experiment."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcoe_model.consent import Consent
from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, News
from server.registry.health import health_of
from server.registry.store import Store, utc_now
from server.registry.tables import (
    CLOSED,
    ENROLLED,
    INVITED,
    LOST,
    OPEN,
    REPORTED,
    REVOKED,
    WITHDRAWN,
    CheckInRow,
    Client,
    ClientState,
    ConsentRow,
    Member,
    Reply,
    Round,
    RouterRow,
)
from server.registry.trials import hear_canary

_HOLDERS = select(Client.id, Client.experiment, Client.public_key, Client.node_id)
_MEMBERS = _HOLDERS.where(Client.state == ENROLLED)
_KEY_TAKEN = "this key is enrolled already; make the device a new one"


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


@dataclass(frozen=True)
class MemberRow:
    """An enrolled client of any experiment, and the key that it holds."""

    id: str
    experiment: str
    public_key: str
    node_id: int | None


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

    def enrol(
        self, token_sha256: str, public_key: str, node_id: int | None, consents: Sequence[Consent] = ()
    ) -> str:
        """Exchange a token, which is gone afterwards, for enrolment under this key; returns the client's id.

        ``node_id`` is None as long as Flower does not know the key; `set_node` names it later.
        Raises EnrolmentRefused for a token that is unknown, used or expired, and for a key that is enrolled already.
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
        """Enrol a client without a token. Raises EnrolmentRefused when the client is known or its key enrolled."""
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
        """How the operator ended the enrolment of the device with this key: LOST, REVOKED, or None."""
        query = select(Client.state).where(Client.state.in_([LOST, REVOKED]), Client.public_key == public_key)
        with self._reading() as session:
            return session.scalars(query).first()

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

    def among(self, patterns: str) -> frozenset[str]:
        """The clients whose id or alias fits one of these patterns, separated by commas; ``*`` fits every one."""
        wanted = [pattern.strip() for pattern in patterns.split(",")]
        query = select(Client.id, Client.alias).where(Client.experiment == self.experiment)
        with self._reading() as session:
            known = session.execute(query).all()
        return frozenset(
            row[0] for row in known if any(fnmatchcase(name, pattern) for name in row if name for pattern in wanted)
        )

    def enrolled(self) -> frozenset[str]:
        """The experiment's enrolled clients, by id."""
        with self._reading() as session:
            return enrolled_of(session, self.experiment)

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

        Raises DataMissing.
        """
        self._end(client_id, LOST if lost else REVOKED)

    def withdraw(self, client_id: str) -> tuple[str, ...]:
        """End a client's enrolment and consents on its own word; returns the ids of the updates that count no more.

        They are those that were accepted in a round that is not published. Its rows stay until it is forgotten. Raises
        DataMissing.
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

    def rename(self, client_id: str, alias: str | None) -> None:
        """Set the operator's word for a client. Raises DataMissing."""
        with self._writing() as session:
            self._client(session, client_id).alias = alias

    def saw(self, check_in: CheckIn, news: News = News()) -> bool:  # noqa: B008 (it is frozen)
        """Record a check-in, what it says of a canary, and what the client hears of its version and its next one.

        A client that nobody enrolled, as in a simulation, is enrolled without a key; so this never says False.
        Raises EnrolmentRefused for a client of another experiment.
        """
        with self._writing() as session:
            client = session.get(Client, check_in.client_id)
            if client is None:
                client = Client(id=check_in.client_id, experiment=self.experiment, state=ENROLLED)
                session.add(client)
            elif client.experiment != self.experiment:
                raise self._elsewhere(client)
            self._saw(session, client, check_in, news)
            return True

    def saw_member(self, check_in: CheckIn, news: News = News()) -> bool:  # noqa: B008 (it is frozen)
        """Record a check-in as `saw`. False, with nothing stored, for a client that has left the fleet meanwhile."""
        with self._writing() as session:
            client = session.get(Client, check_in.client_id)
            if client is None or client.experiment != self.experiment or client.state != ENROLLED:
                return False
            self._saw(session, client, check_in, news)
            return True

    def saw_other_protocol(self, client_id: str, version: int) -> None:
        """Record that a client is there whose program speaks this other protocol: nothing else of it can be read."""
        with self._writing() as session:
            client, now = session.get(Client, client_id), utc_now()
            if client is None or client.experiment != self.experiment:
                return  # it was forgotten meanwhile
            client.first_seen, client.last_seen = client.first_seen or now, now
            client.standing, client.next_check_in = f"protocol {version}"[:32], None

    def able_since(self, since: datetime.datetime) -> frozenset[str]:
        """The enrolled clients that have checked in since then with clips and with a program that may train."""
        query = select(Client.id).where(Client.experiment == self.experiment, Client.state == ENROLLED)
        query = query.where(Client.last_seen >= since, Client.examples > 0)
        with self._reading() as session:
            return frozenset(session.scalars(query.where(Client.standing.in_(("ok", "update-advised")))))

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

    def _saw(self, session: Session, client: Client, check_in: CheckIn, news: News) -> None:
        now = utc_now()
        client.first_seen = client.first_seen or now
        client.last_seen = now
        if client.examples != check_in.examples:
            client.learned_rounds = 0
        client.examples, client.client_version = check_in.examples, check_in.client_version
        client.preset, client.capabilities = check_in.preset, " ".join(check_in.capabilities)
        client.standing = news.standing or None
        later = datetime.timedelta(seconds=news.next_check_in_s)
        client.next_check_in = now + later if later else None
        session.flush()
        session.add(
            CheckInRow(client_id=client.id, time=now, examples=client.examples, client_version=client.client_version)
        )
        hear_canary(session, self.experiment, check_in)

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
            self._leave(session, client_id, state)

    def _leave(self, session: Session, client_id: str, state: ClientState) -> None:
        client = self._client(session, client_id)
        client.state, client.token_sha256, client.token_expires = state, None, None
        if state == WITHDRAWN:
            self._end_consents(session, client_id)
        self._audit(session, f"client {state}", client_id)

    def _end_consents(self, session: Session, client_id: str) -> None:
        given = update(ConsentRow).where(ConsentRow.client_id == client_id, ConsentRow.withdrawn.is_(None))
        session.execute(given.values(withdrawn=utc_now()))

    def _set_key(self, session: Session, client: Client, public_key: str, node_id: int | None) -> None:
        client.public_key, client.node_id = public_key, node_id
        self._flush(session, _KEY_TAKEN)

    def _flush(self, session: Session, taken: str) -> None:
        try:
            session.flush()
        except IntegrityError as fault:
            raise EnrolmentRefused(taken) from fault


def enrolled_of(session: Session, experiment: str) -> frozenset[str]:
    """An experiment's enrolled clients, as they are in this transaction."""
    query = select(Client.id).where(Client.experiment == experiment, Client.state == ENROLLED)
    return frozenset(session.scalars(query))


def _member(row: Row[str, str, str | None, int | None]) -> MemberRow:
    return MemberRow(row[0], row[1], str(row[2]), row[3])
