"""Readings, rollups, last values and runs."""

import sqlalchemy as sa
from alembic import op

revision = "storage_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arrivals",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=160), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "boot", "seq"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("arrivals", schema=None) as batch_op:
        batch_op.create_index("arrivals_by_time", ["device", "ts"], unique=False)

    op.create_table(
        "latest",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "metric"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "points",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.String(length=160), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "metric", "ts", "boot", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollups",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Float(), nullable=False),
        sa.Column("least", sa.Float(), nullable=False),
        sa.Column("most", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "metric", "size", "start"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "runs",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=160), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("doubled", sa.BigInteger(), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "boot"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("runs")
    op.drop_table("rollups")
    op.drop_table("points")
    op.drop_table("latest")
    with op.batch_alter_table("arrivals", schema=None) as batch_op:
        batch_op.drop_index("arrivals_by_time")

    op.drop_table("arrivals")
