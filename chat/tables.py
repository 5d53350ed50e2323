"""What chat keeps: rooms, who is in them, and what was said. Times in milliseconds since 1970."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

TABLES = MetaData()
ROOMS = Table(
    "rooms",
    TABLES,
    Column("id", String(32), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("name", String(100), nullable=False),
    # Number of the newest entry. Whoever writes locks this row first, so numbers have no gap.
    Column("seq", BigInteger, nullable=False),
    Column("made", BigInteger, nullable=False),
)
Index("rooms_of_a_kind", ROOMS.c.kind, ROOMS.c.id)
MEMBERS = Table(
    "members",
    TABLES,
    Column("room", String(32), primary_key=True),
    Column("member", String(64), primary_key=True),
    # Who has left keeps the row, and the bucket in it.
    Column("role", String(8), nullable=False),
    Column("joined", BigInteger, nullable=False),
    Column("read_seq", BigInteger, nullable=False),
    Column("full_at", BigInteger, nullable=False),
    Column("typed_at", BigInteger, nullable=False),
)
Index("rooms_of_a_member", MEMBERS.c.member, MEMBERS.c.room)
PEOPLE = Table(
    "people",
    TABLES,
    Column("member", String(64), primary_key=True),
    # As they call themselves; empty where they did not say.
    Column("name", String(100), nullable=False),
    # How fast they make rooms, and let people in: the bucket of `rules.take`.
    Column("full_at", BigInteger, nullable=False),
)
LOG = Table(
    "log",
    TABLES,
    Column("room", String(32), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("author", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("id", String(64), nullable=False),
    Column("text", Text),
    Column("of", BigInteger, nullable=False),
    Column("member", String(64), nullable=False),
    Column("edited", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
)
# Repeats are looked for by it.
Index("log_of_an_author", LOG.c.room, LOG.c.author, LOG.c.id)
