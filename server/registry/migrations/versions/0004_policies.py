"""How rounds go on: the optimiser's moments, an update's staleness, data learned before, requests, why none is open."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("moments_sha256", sa.String(), nullable=True))
    op.add_column("rounds", sa.Column("moments_sha256", sa.String(), nullable=True))
    op.add_column("replies", sa.Column("staleness", sa.Integer(), nullable=True))
    op.add_column("clients", sa.Column("learned_rounds", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "round_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("round_requests_of_experiment", "round_requests", ["experiment", "round_id"])
    op.create_table(
        "waiting",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("experiment"),
    )
