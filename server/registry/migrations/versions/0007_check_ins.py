"""What a check-in says of its client's program, and what the client is told: its standing and its next check-in."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("clients") as clients:
        clients.add_column(sa.Column("preset", sa.String(), nullable=True))
        clients.add_column(sa.Column("capabilities", sa.String(), nullable=True))
        clients.add_column(sa.Column("standing", sa.String(), nullable=True))
        clients.add_column(sa.Column("next_check_in", sa.DateTime(timezone=True), nullable=True))
