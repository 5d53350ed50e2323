"""Sagas: where each is."""

import sqlalchemy as sa
from alembic import op

revision = "gateway_0002"
down_revision = "gateway_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gateway_saga",
        sa.Column("saga", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(256), primary_key=True),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("steps", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("late", sa.BigInteger),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
    )
    op.create_index("gateway_saga_phase", "gateway_saga", ["saga", "phase"])
    op.create_index("gateway_saga_ended", "gateway_saga", ["saga", "ended"])


def downgrade() -> None:
    op.drop_table("gateway_saga")
