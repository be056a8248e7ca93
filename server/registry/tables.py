"""The registry's tables.

A client, a model, a round and an event name their experiment, and every other row hangs from one of them, so that two
experiments can share one registry. Evaluations belong to a model's bytes, whoever uses them. Times are UTC.
"""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from server.registry.columns import NodeId, PlainJson, UtcTime

#: What a round can be.
OPEN, CLOSED, PUBLISHED, ABANDONED = "open", "closed", "published", "abandoned"


class Base(DeclarativeBase):
    """The registry's metadata, and how Python's types are stored."""

    type_annotation_map = {dict[str, Any]: PlainJson, datetime.datetime: UtcTime}  # noqa: RUF012


class Client(Base):
    """A wearable, or a subject in a simulation, under a pseudonymous id. It is in one experiment.

    ``alias`` is the operator's word for it and is never sent anywhere. ``public_key`` is PEM text. What a check-in says
    is unknown until the first one.
    """

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    first_seen: Mapped[datetime.datetime | None]
    last_seen: Mapped[datetime.datetime | None]
    examples: Mapped[int | None]
    client_version: Mapped[str | None]
    alias: Mapped[str | None]
    experiment: Mapped[str] = mapped_column(index=True)
    state: Mapped[str]
    public_key: Mapped[str | None] = mapped_column(index=True, unique=True)
    node_id: Mapped[int | None] = mapped_column(NodeId, index=True, unique=True)
    token_sha256: Mapped[str | None] = mapped_column(index=True, unique=True)
    token_expires: Mapped[datetime.datetime | None]


class CheckInRow(Base):
    """One check-in of a client; kept for the retention time."""

    __tablename__ = "check_ins"
    __table_args__ = (Index("check_ins_of_client", "client_id", "time"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    time: Mapped[datetime.datetime]
    examples: Mapped[int]
    client_version: Mapped[str]


class Model(Base):
    """A version: a model that was made, imported or released again.

    Its artifact is a file named by ``sha256``; a row never exists without it. A model that is released again has two
    versions with the same bytes.
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


class Round(Base):
    """One round: open -> closed -> published, or abandoned with a reason and the model left as it was."""

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
    opened: Mapped[datetime.datetime]
    closed: Mapped[datetime.datetime | None]
    published: Mapped[datetime.datetime | None]
    reason: Mapped[str | None]


class Member(Base):
    """A client that a round asks for an update: together they are the round's cohort."""

    __tablename__ = "members"
    __table_args__ = (Index("members_by_client", "client_id"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)


class Reply(Base):
    """The verdict on one reply. An accepted one has its update in the spool under ``update_id``."""

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
