"""Rules, alerts and the fleet."""

import sqlalchemy as sa
from alembic import op

revision = "alerting_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("acknowledged", sa.String(length=80), nullable=False),
        sa.Column("comment", sa.String(length=500), nullable=False),
        sa.PrimaryKeyConstraint("rule", "device"),
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index("alerts_of_a_device", ["device"], unique=False)

    op.create_table(
        "fleet",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("device"),
    )
    with op.batch_alter_table("fleet", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_fleet_seen"), ["seen"], unique=False)

    op.create_table(
        "rules",
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("said", sa.LargeBinary(), nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("rule"),
    )


def downgrade() -> None:
    op.drop_table("rules")
    with op.batch_alter_table("fleet", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_fleet_seen"))

    op.drop_table("fleet")
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_index("alerts_of_a_device")

    op.drop_table("alerts")
