"""What notifications keeps: who agreed to promotions, what became of messages; no address. Milliseconds since 1970."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, String, Table

TABLES = MetaData()
CONSENTS = Table(
    "consents",
    TABLES,
    Column("user", String(64), primary_key=True),
    # What the link of a promotion names: whoever has it may take the consent back, and nothing else.
    Column("token", String(64), nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
)
PROMOTIONS = Table(
    "promotions",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
)
MESSAGES = Table(
    "messages",
    TABLES,
    Column("id", String(160), primary_key=True),
    # Empty for the operator.
    Column("user", String(64), nullable=False),
    Column("template", String(32), nullable=False),
    Column("channel", String(8), nullable=False),
    # See `rules.Outcome`.
    Column("outcome", String(16), nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)
