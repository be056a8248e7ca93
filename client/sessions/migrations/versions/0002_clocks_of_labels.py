"""Labels, lessons and consents tell the monotonic time, and whether the clock could be believed; older rows do not."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("consents", "span_labels", "training_history"):
        op.add_column(table, sa.Column("monotonic_ns", sa.Integer(), nullable=True))
    for table in ("span_labels", "training_history"):
        op.add_column(table, sa.Column("clock_state", sa.String(), nullable=True))
