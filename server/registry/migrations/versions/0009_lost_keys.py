"""Keys of lost devices, which stay lost whatever becomes of their clients."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lost_keys = op.create_table(
        "lost_keys",
        sa.Column("key_sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key_sha256"),
    )
    query = "SELECT public_key FROM clients WHERE state = 'lost' AND public_key IS NOT NULL"
    for (key,) in op.get_bind().execute(sa.text(query)).all():
        op.execute(lost_keys.insert().values(key_sha256=hashlib.sha256(key.encode()).hexdigest()))
