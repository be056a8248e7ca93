"""The tables of one wearer's store.

Times named ``_us`` are microseconds: of the camera's clock in ``camera_us`` and in segments, spans and labels
(``start_us``, ``end_us``), else UTC since 1970. Columns of type `Encrypted` can be read with the device key only; the
others hold nothing that the wearer felt, said or saw. SQLite keeps every whole number in up to 64 bits.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from client.sessions.columns import Encrypted

#: What a session can be. A partial one was cut short: the camera was pulled out, a process or the power went.
SessionState = Literal["recording", "whole", "partial"]
RECORDING, WHOLE, PARTIAL = get_args(SessionState)


class Base(DeclarativeBase):
    """The store's metadata, and how Python's types are stored."""

    type_annotation_map = {dict[str, Any]: JSON, bytes: LargeBinary}  # noqa: RUF012


class ConsentTextRow(Base):
    """A text that the wearer was shown, kept so that a copy can be had at any time."""

    __tablename__ = "consent_texts"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    language: Mapped[str]
    text: Mapped[str]


class ConsentRow(Base):
    """One answer, or one withdrawal. Rows are added and never changed; the newest of a kind counts."""

    __tablename__ = "consents"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(index=True)
    given: Mapped[bool]
    text_sha256: Mapped[str] = mapped_column(ForeignKey("consent_texts.sha256"))
    utc_us: Mapped[int]
    zone: Mapped[str]
    clock_state: Mapped[str]
    monotonic_ns: Mapped[int | None]


class SessionRow(Base):
    """One recording. Without ``wrapped_key`` nobody can open its segments any more, even if their bytes were kept.

    ``started_us`` is when its first picture was; until that is sealed, when the session was asked for.
    ``raw_until_us`` is when its recordings will be deleted, ``kept`` whether the wearer asked for a later day than the
    rules give. ``flaw`` is a word for why it is not learned from, such as out-of-sync.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(index=True)
    camera: Mapped[str]
    geometry: Mapped[dict[str, Any]]
    wrapped_key: Mapped[bytes | None]
    zone: Mapped[str]
    clock_state: Mapped[str]
    started_us: Mapped[int]
    started_monotonic_ns: Mapped[int]
    ended_us: Mapped[int | None]
    ended_monotonic_ns: Mapped[int | None]
    ended_why: Mapped[str | None]
    flaw: Mapped[str | None]
    learned_us: Mapped[int | None]
    raw_until_us: Mapped[int]
    kept: Mapped[bool] = mapped_column(default=False)
    raw_deleted_us: Mapped[int | None]


class ClockRow(Base):
    """What the camera's clock and this device's said at one time: at a session's start, and after the clock was set."""

    __tablename__ = "clocks"
    __table_args__ = (Index("clocks_of_session", "session_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    camera_us: Mapped[int]
    utc_us: Mapped[int]
    monotonic_ns: Mapped[int]
    zone: Mapped[str]
    clock_state: Mapped[str]
    stepped: Mapped[bool]


class SegmentRow(Base):
    """About ten seconds of a session in one sealed file.

    ``plain`` is the name of the unsealed file in memory until the sealed one is on the disk; then ``sha256`` and
    ``bytes`` are those of the sealed file, and the row counts.
    """

    __tablename__ = "segments"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    starts_us: Mapped[int]
    ends_us: Mapped[int]
    events: Mapped[int]
    frames: Mapped[int]
    imu: Mapped[int]
    triggers: Mapped[int]
    plain: Mapped[str | None]
    sha256: Mapped[str | None]
    bytes: Mapped[int | None]


class SpanRow(Base):
    """A part of a session, as it was first marked. ``predicted`` is what the model took it for.

    ``learned_label_id`` is the version of its label that the head was trained with last.
    """

    __tablename__ = "spans"
    __table_args__ = (Index("spans_of_session", "session_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    start_us: Mapped[int]
    end_us: Mapped[int]
    made_us: Mapped[int]
    predicted: Mapped[dict[str, Any] | None] = mapped_column(Encrypted("spans.predicted"))
    learned_label_id: Mapped[int | None]
    learned_us: Mapped[int | None]


class LabelRow(Base):
    """A version of a span: where it lies, and what the wearer said, None before that.

    The newest version that was not undone counts; a span without one is as it was first marked.
    """

    __tablename__ = "span_labels"
    __table_args__ = (Index("labels_of_span", "span_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    span_id: Mapped[int] = mapped_column(ForeignKey("spans.id", ondelete="CASCADE"))
    start_us: Mapped[int]
    end_us: Mapped[int]
    said: Mapped[dict[str, Any] | None] = mapped_column(Encrypted("span_labels.said"))
    source: Mapped[str]
    edited_us: Mapped[int]
    zone: Mapped[str]
    undone: Mapped[bool] = mapped_column(default=False)
    monotonic_ns: Mapped[int | None]
    clock_state: Mapped[str | None]


class RequestRow(Base):
    """A form that was sent, so that one which is sent twice counts once. ``span_id`` is what it was about."""

    __tablename__ = "requests"

    token: Mapped[str] = mapped_column(primary_key=True)
    span_id: Mapped[int] = mapped_column(ForeignKey("spans.id", ondelete="CASCADE"), index=True)
    utc_us: Mapped[int]


class MarkerRow(Base):
    """Something that a stimulus computer, the camera's signal input or the wearer marked."""

    __tablename__ = "markers"
    __table_args__ = (Index("markers_of_session", "session_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    source: Mapped[str]
    text: Mapped[str] = mapped_column(Encrypted("markers.text"))
    camera_us: Mapped[int | None]
    utc_us: Mapped[int]
    monotonic_ns: Mapped[int]
    zone: Mapped[str]
    clock_state: Mapped[str]


class PromptRow(Base):
    """A question for a label that waits until the wearer looks. ``event_us`` is when that was which it asks about."""

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    span_id: Mapped[int] = mapped_column(ForeignKey("spans.id", ondelete="CASCADE"), index=True)
    why: Mapped[str]
    local_day: Mapped[str] = mapped_column(index=True)
    event_us: Mapped[int]
    asked_us: Mapped[int]
    expires_us: Mapped[int]
    snoozed_until_us: Mapped[int | None]
    shown_us: Mapped[int | None]
    answered_us: Mapped[int | None]
    ended: Mapped[str | None]


class TrainingRow(Base):
    """One time that the head learned here, or was asked to and did not. ``scores`` are those of the wearer's clips."""

    __tablename__ = "training_history"

    id: Mapped[int] = mapped_column(primary_key=True)
    utc_us: Mapped[int]
    zone: Mapped[str]
    base_sha256: Mapped[str]
    model_sha256: Mapped[str | None]
    spans: Mapped[int]
    outcome: Mapped[str]
    seconds: Mapped[float]
    scores: Mapped[dict[str, Any] | None] = mapped_column(Encrypted("training_history.scores"))
    monotonic_ns: Mapped[int | None]
    clock_state: Mapped[str | None]
