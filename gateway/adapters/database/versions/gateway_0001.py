"""Inbox, outbox, and who relays."""

import sqlalchemy as sa
from alembic import op

revision = "gateway_0001"
down_revision = None
branch_labels = ("gateway",)
depends_on = None


#: The clock in milliseconds.
_NOW = {
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    "sqlite": "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))",
}


def upgrade() -> None:
    now = sa.text(_NOW[op.get_bind().dialect.name])
    op.create_table(
        "gateway_inbox",
        sa.Column("group", sa.String(128), primary_key=True),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False, server_default=now),
        sa.Column("reply", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_index("gateway_inbox_at", "gateway_inbox", ["at"])
    op.create_table(
        "gateway_outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("topic", sa.String(1024), nullable=False),
        sa.Column("id", sa.String(256), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("meta", sa.LargeBinary, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("gateway_outbox_due", "gateway_outbox", ["due", "seq"])
    op.create_table(
        "gateway_relay",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for name in ("gateway_relay", "gateway_outbox", "gateway_inbox"):
        op.drop_table(name)
