"""A fleet: enrolment, check-ins one by one, model lineage, audit events, privacy budget."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: A client's experiment is that of the rounds that asked it, else that of the models that are there.
EXPERIMENT = """
UPDATE clients SET experiment = COALESCE(
    (SELECT MIN(rounds.experiment) FROM rounds JOIN members ON members.round_id = rounds.id
     WHERE members.client_id = clients.id),
    (SELECT MIN(experiment) FROM models),
    'default'
)
"""


def upgrade() -> None:
    op.add_column("clients", sa.Column("experiment", sa.String(), nullable=True))
    op.execute(EXPERIMENT)
    with op.batch_alter_table("clients") as clients:
        clients.alter_column("experiment", existing_type=sa.String(), nullable=False)
        for seen in ("first_seen", "last_seen"):
            clients.alter_column(seen, existing_type=sa.DateTime(timezone=True), nullable=True)
        clients.alter_column("examples", existing_type=sa.Integer(), nullable=True)
        clients.alter_column("client_version", existing_type=sa.String(), nullable=True)
        clients.add_column(sa.Column("alias", sa.String(), nullable=True))
        clients.add_column(sa.Column("state", sa.String(), nullable=False, server_default="enrolled"))
        clients.add_column(sa.Column("public_key", sa.String(), nullable=True))
        clients.add_column(sa.Column("node_id", sa.BigInteger(), nullable=True))
        clients.add_column(sa.Column("token_sha256", sa.String(), nullable=True))
        clients.add_column(sa.Column("token_expires", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("clients") as clients:
        clients.alter_column("state", existing_type=sa.String(), server_default=None)
    op.create_index("ix_clients_experiment", "clients", ["experiment"])
    for column in ("public_key", "node_id", "token_sha256"):
        op.create_index(f"ix_clients_{column}", "clients", [column], unique=True)

    op.add_column("rounds", sa.Column("published", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_rounds_published_sha256", "rounds", ["published_sha256"])
    op.create_index("ix_models_parent_sha256", "models", ["parent_sha256"])
    op.drop_index("replies_of_client", "replies")
    op.create_index("replies_of_client", "replies", ["client_id", "accepted"])
    op.create_index("members_by_client", "members", ["client_id"])
    op.create_index("router_statistics_of_client", "router_statistics", ["client_id"])

    op.create_table(
        "check_ins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("client_version", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("check_ins_of_client", "check_ins", ["client_id", "time"])
    op.create_table(
        "privacy_budget",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"]),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"]),
        sa.PrimaryKeyConstraint("round_id", "client_id"),
    )
    op.create_index("privacy_budget_of_client", "privacy_budget", ["client_id"])
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_events_of_experiment", "audit_events", ["experiment", "id"])
    op.create_index("ix_audit_events_client_id", "audit_events", ["client_id"])
