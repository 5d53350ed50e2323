"""Parcels."""

import sqlalchemy as sa
from alembic import op

revision = "shipping_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parcels",
        sa.Column("order", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("tracking", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("order"),
    )


def downgrade() -> None:
    op.drop_table("parcels")
