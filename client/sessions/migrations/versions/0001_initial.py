"""The first schema: consents, sessions and their segments, spans and labels, markers, prompts, training history."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "consent_texts",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("geometry", sa.JSON(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("clock_state", sa.String(), nullable=False),
        sa.Column("started_us", sa.Integer(), nullable=False),
        sa.Column("started_monotonic_ns", sa.Integer(), nullable=False),
        sa.Column("ended_us", sa.Integer(), nullable=True),
        sa.Column("ended_monotonic_ns", sa.Integer(), nullable=True),
        sa.Column("ended_why", sa.String(), nullable=True),
        sa.Column("flaw", sa.String(), nullable=True),
        sa.Column("learned_us", sa.Integer(), nullable=True),
        sa.Column("raw_until_us", sa.Integer(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("raw_deleted_us", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_sessions_state"), "sessions", ["state"], unique=False)
    op.create_table(
        "training_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("utc_us", sa.Integer(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("base_sha256", sa.String(), nullable=False),
        sa.Column("model_sha256", sa.String(), nullable=True),
        sa.Column("spans", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "clocks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("camera_us", sa.Integer(), nullable=False),
        sa.Column("utc_us", sa.Integer(), nullable=False),
        sa.Column("monotonic_ns", sa.Integer(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("clock_state", sa.String(), nullable=False),
        sa.Column("stepped", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("clocks_of_session", "clocks", ["session_id"], unique=False)
    op.create_table(
        "consents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("given", sa.Boolean(), nullable=False),
        sa.Column("text_sha256", sa.String(), nullable=False),
        sa.Column("utc_us", sa.Integer(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("clock_state", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["text_sha256"],
            ["consent_texts.sha256"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_consents_kind"), "consents", ["kind"], unique=False)
    op.create_table(
        "markers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
        sa.Column("camera_us", sa.Integer(), nullable=True),
        sa.Column("utc_us", sa.Integer(), nullable=False),
        sa.Column("monotonic_ns", sa.Integer(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("clock_state", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("markers_of_session", "markers", ["session_id"], unique=False)
    op.create_table(
        "segments",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("starts_us", sa.Integer(), nullable=False),
        sa.Column("ends_us", sa.Integer(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("imu", sa.Integer(), nullable=False),
        sa.Column("triggers", sa.Integer(), nullable=False),
        sa.Column("plain", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("bytes", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("session_id", "number"),
    )
    op.create_table(
        "spans",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("start_us", sa.Integer(), nullable=False),
        sa.Column("end_us", sa.Integer(), nullable=False),
        sa.Column("made_us", sa.Integer(), nullable=False),
        sa.Column("predicted", sa.LargeBinary(), nullable=True),
        sa.Column("learned_label_id", sa.Integer(), nullable=True),
        sa.Column("learned_us", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("spans_of_session", "spans", ["session_id"], unique=False)
    op.create_table(
        "prompts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("span_id", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("local_day", sa.String(), nullable=False),
        sa.Column("event_us", sa.Integer(), nullable=False),
        sa.Column("asked_us", sa.Integer(), nullable=False),
        sa.Column("expires_us", sa.Integer(), nullable=False),
        sa.Column("snoozed_until_us", sa.Integer(), nullable=True),
        sa.Column("shown_us", sa.Integer(), nullable=True),
        sa.Column("answered_us", sa.Integer(), nullable=True),
        sa.Column("ended", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["span_id"], ["spans.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_prompts_local_day"), "prompts", ["local_day"], unique=False)
    op.create_index(op.f("ix_prompts_session_id"), "prompts", ["session_id"], unique=False)
    op.create_index(op.f("ix_prompts_span_id"), "prompts", ["span_id"], unique=False)
    op.create_table(
        "requests",
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("span_id", sa.Integer(), nullable=False),
        sa.Column("utc_us", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["span_id"], ["spans.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_index(op.f("ix_requests_span_id"), "requests", ["span_id"], unique=False)
    op.create_table(
        "span_labels",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("span_id", sa.Integer(), nullable=False),
        sa.Column("start_us", sa.Integer(), nullable=False),
        sa.Column("end_us", sa.Integer(), nullable=False),
        sa.Column("said", sa.LargeBinary(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("edited_us", sa.Integer(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["span_id"], ["spans.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("labels_of_span", "span_labels", ["span_id"], unique=False)
    for change in ("UPDATE", "DELETE"):  # consents are added to, whatever a later program may try
        op.execute(
            f"CREATE TRIGGER consents_no_{change.lower()} BEFORE {change} ON consents "
            "BEGIN SELECT RAISE(ABORT, 'consents are added to, never changed'); END"
        )
