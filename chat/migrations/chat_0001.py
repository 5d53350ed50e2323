"""Rooms, members, and one log for each room."""

import sqlalchemy as sa
from alembic import op

revision = "chat_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log",
        sa.Column("room", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("of", sa.BigInteger(), nullable=False),
        sa.Column("member", sa.String(length=64), nullable=False),
        sa.Column("edited", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("room", "seq"),
    )
    with op.batch_alter_table("log", schema=None) as batch_op:
        batch_op.create_index("log_of_an_author", ["room", "author", "id"], unique=False)

    op.create_table(
        "members",
        sa.Column("room", sa.String(length=32), nullable=False),
        sa.Column("member", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("joined", sa.BigInteger(), nullable=False),
        sa.Column("read_seq", sa.BigInteger(), nullable=False),
        sa.Column("full_at", sa.BigInteger(), nullable=False),
        sa.Column("typed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("room", "member"),
    )
    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.create_index("rooms_of_a_member", ["member", "room"], unique=False)

    op.create_table(
        "rooms",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("rooms", schema=None) as batch_op:
        batch_op.create_index("rooms_of_a_kind", ["kind", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("rooms", schema=None) as batch_op:
        batch_op.drop_index("rooms_of_a_kind")

    op.drop_table("rooms")
    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.drop_index("rooms_of_a_member")

    op.drop_table("members")
    with op.batch_alter_table("log", schema=None) as batch_op:
        batch_op.drop_index("log_of_an_author")

    op.drop_table("log")
