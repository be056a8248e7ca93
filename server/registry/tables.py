"""The registry's tables.

A client, a model, a round and an event name their experiment, and every other row hangs from one of them, so that two
experiments can share one registry. Evaluations belong to a model's bytes, whoever uses them, and a lost key is lost
everywhere. Times are UTC.
"""

from __future__ import annotations

import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from server.registry.columns import NodeId, PlainJson, UtcTime

#: What a round can be.
OPEN, CLOSED, PUBLISHED, ABANDONED = "open", "closed", "published", "abandoned"

#: What a client can be.
ClientState = Literal["invited", "enrolled", "revoked", "withdrawn", "lost"]
INVITED, ENROLLED, REVOKED, WITHDRAWN, LOST = get_args(ClientState)

#: The columns of a reply that tell of its client's clips and training.
REPORTED = ("examples", "loss_before", "loss_after", "norm", "seconds")


class Base(DeclarativeBase):
    """The registry's metadata, and how Python's types are stored."""

    type_annotation_map = {dict[str, Any]: PlainJson, datetime.datetime: UtcTime}  # noqa: RUF012


class Client(Base):
    """A wearable, or a subject in a simulation, under a pseudonymous id. It is in one experiment.

    ``alias`` is the operator's word for it and is never sent anywhere. ``public_key`` is PEM text. What a check-in says
    is unknown until the first one: ``capabilities`` are words separated by spaces, ``standing`` is what it was told of
    its version, or the other protocol that it speaks, ``next_check_in`` when it was told to come again, None for one
    that stays connected. ``learned_rounds`` counts the models that its clips were learned in, since
    their number last changed.
    """

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    first_seen: Mapped[datetime.datetime | None]
    last_seen: Mapped[datetime.datetime | None]
    examples: Mapped[int | None]
    client_version: Mapped[str | None]
    preset: Mapped[str | None]
    capabilities: Mapped[str | None]
    standing: Mapped[str | None]
    next_check_in: Mapped[datetime.datetime | None]
    alias: Mapped[str | None]
    experiment: Mapped[str] = mapped_column(index=True)
    state: Mapped[str]
    public_key: Mapped[str | None] = mapped_column(index=True, unique=True)
    node_id: Mapped[int | None] = mapped_column(NodeId, index=True, unique=True)
    token_sha256: Mapped[str | None] = mapped_column(index=True, unique=True)
    token_expires: Mapped[datetime.datetime | None]
    learned_rounds: Mapped[int] = mapped_column(default=0)


class LostKey(Base):
    """The SHA-256 of a key whose device was reported lost. It stays, whoever has the client's id later, or none has."""

    __tablename__ = "lost_keys"

    key_sha256: Mapped[str] = mapped_column(primary_key=True)


class ConsentRow(Base):
    """What a wearer agreed to, by kind and version of the text, until it was withdrawn. No text is kept."""

    __tablename__ = "consents"
    __table_args__ = (Index("consents_of_client", "client_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    kind: Mapped[str]
    version: Mapped[str]
    given: Mapped[datetime.datetime]
    withdrawn: Mapped[datetime.datetime | None]


class CheckInRow(Base):
    """One check-in of a client; kept for the retention time."""

    __tablename__ = "check_ins"
    __table_args__ = (Index("check_ins_of_client", "client_id", "time"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    time: Mapped[datetime.datetime]
    examples: Mapped[int]
    client_version: Mapped[str]


class HealthRow(Base):
    """What a client last said of its health (`mcoe_model.health`), and the day on which it did, counted from 1970."""

    __tablename__ = "health"

    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    day: Mapped[int]
    said: Mapped[dict[str, Any]]


class Model(Base):
    """A version: a model that was made, imported or released again.

    Its artifact is a file named by ``sha256``; a row never exists without it. A model that is released again has two
    versions with the same bytes. ``moments_sha256`` names what the server's optimiser knew after making it, likewise.
    """

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("experiment", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    parent_sha256: Mapped[str | None] = mapped_column(index=True)
    generation: Mapped[str]
    state: Mapped[str]
    created: Mapped[datetime.datetime]
    moments_sha256: Mapped[str | None]


class Round(Base):
    """One round: open -> closed -> published, or abandoned with a reason and the model left as it was.

    ``moments_sha256`` names the server's optimiser's moments that it starts from.
    """

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("experiment", "number", "attempt"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    number: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str]
    base_sha256: Mapped[str]
    published_sha256: Mapped[str | None] = mapped_column(index=True)
    settings: Mapped[dict[str, Any]]
    norm_bound: Mapped[float | None]
    moments_sha256: Mapped[str | None]
    opened: Mapped[datetime.datetime]
    closed: Mapped[datetime.datetime | None]
    published: Mapped[datetime.datetime | None]
    reason: Mapped[str | None]


class RoundRequest(Base):
    """The operator's word that a round shall open; ``round_id`` is the round that answered it."""

    __tablename__ = "round_requests"
    __table_args__ = (Index("round_requests_of_experiment", "experiment", "round_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    time: Mapped[datetime.datetime]
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))


class WaitingRow(Base):
    """Why an experiment has no open round, as its coordinator last said; there is no row while one is open."""

    __tablename__ = "waiting"

    experiment: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime.datetime]
    reason: Mapped[str]


class Member(Base):
    """A client that a round asks for an update: together they are the round's cohort."""

    __tablename__ = "members"
    __table_args__ = (Index("members_by_client", "client_id"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)


class Reply(Base):
    """The verdict on one reply. An accepted one has its update in the spool under ``update_id``.

    ``staleness``: how many versions lie between the update's base and the round's.
    """

    __tablename__ = "replies"
    __table_args__ = (Index("replies_of_client", "client_id", "accepted"), Index("replies_by_update", "update_id"))

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    update_id: Mapped[str | None]
    accepted: Mapped[bool]
    reason: Mapped[str | None]
    bytes_down: Mapped[int]
    bytes_up: Mapped[int]
    examples: Mapped[int | None]
    loss_before: Mapped[float | None]
    loss_after: Mapped[float | None]
    norm: Mapped[float | None]
    seconds: Mapped[float | None]
    staleness: Mapped[int | None]
    received: Mapped[datetime.datetime]


class RouterRow(Base):
    """Routed count and gate mass of one expert for one client's clips in one round."""

    __tablename__ = "router_statistics"
    __table_args__ = (Index("router_statistics_of_client", "client_id"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    expert: Mapped[int] = mapped_column(primary_key=True)
    examples: Mapped[int]
    top_k: Mapped[int]
    routed: Mapped[int]
    gate_mass: Mapped[float]


class Evaluation(Base):
    """What a model scored on a named evaluation set."""

    __tablename__ = "evaluations"

    model_sha256: Mapped[str] = mapped_column(primary_key=True)
    evaluation_set: Mapped[str] = mapped_column(primary_key=True)
    scores: Mapped[dict[str, Any]]


class BudgetRow(Base):
    """The privacy that a client had spent after a round: its epsilon at this delta, over all its rounds so far."""

    __tablename__ = "privacy_budget"
    __table_args__ = (Index("privacy_budget_of_client", "client_id"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    epsilon: Mapped[float]
    delta: Mapped[float]


class AuditEvent(Base):
    """Something that was done to clients or models.

    When a client is forgotten its id is blanked and the event stays, so the id is no foreign key.
    """

    __tablename__ = "audit_events"
    __table_args__ = (Index("audit_events_of_experiment", "experiment", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    time: Mapped[datetime.datetime]
    kind: Mapped[str]
    client_id: Mapped[str | None] = mapped_column(index=True)
    detail: Mapped[str]


class TrialRow(Base):
    """The way of a model from candidate to released, or to held. ``says`` what it waits for, or why it was decided.

    As long as no canary began the rest is None: the share of the clients that it was offered to, the check-ins that it
    needs, and its time.
    """

    __tablename__ = "trials"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    says: Mapped[str]
    share: Mapped[float | None]
    check_ins: Mapped[int | None]
    started: Mapped[datetime.datetime | None]
    ends: Mapped[datetime.datetime | None]


class CanaryClientRow(Base):
    """A client that a canary is offered to, and what was heard of it (`server.lifecycle.CanaryClient`)."""

    __tablename__ = "canary_clients"
    __table_args__ = (Index("canary_clients_by_client", "client_id"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    check_ins: Mapped[int]
    refusal: Mapped[str | None]
    went_back: Mapped[bool]


class ClientEvaluation(Base):
    """How many of a client's clips a candidate and its parent recognise."""

    __tablename__ = "client_evaluations"
    __table_args__ = (Index("client_evaluations_by_client", "client_id"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    examples: Mapped[int]
    correct: Mapped[int]
    parent_correct: Mapped[int]
    received: Mapped[datetime.datetime]
