"""The registry's tables. One row each for clients, models, rounds, replies, router statistics and evaluations.

Every row that belongs to an experiment names it, so that two experiments can share one registry. Times are UTC.
"""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime


class Base(DeclarativeBase):
    """The registry's metadata; JSON columns hold plain dictionaries."""

    type_annotation_map = {dict[str, Any]: JSON, datetime.datetime: DateTime(timezone=True)}  # noqa: RUF012


class Client(Base):
    """A wearable, or a subject in a simulation, under a pseudonymous id."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    first_seen: Mapped[datetime.datetime]
    last_seen: Mapped[datetime.datetime]
    examples: Mapped[int]
    client_version: Mapped[str]


class Model(Base):
    """A model that was made or imported. Its artifact is a file named by ``sha256``; a row never exists without it."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("experiment", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    parent_sha256: Mapped[str | None]
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
    published_sha256: Mapped[str | None]
    settings: Mapped[dict[str, Any]]
    norm_bound: Mapped[float | None]
    opened: Mapped[datetime.datetime]
    closed: Mapped[datetime.datetime | None]
    reason: Mapped[str | None]


class Member(Base):
    """A client that a round asks for an update: together they are the round's cohort."""

    __tablename__ = "members"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)


class Reply(Base):
    """The verdict on one reply. An accepted one has its update in the spool under ``update_id``."""

    __tablename__ = "replies"
    __table_args__ = (Index("replies_of_client", "client_id"), Index("replies_by_update", "update_id"))

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
