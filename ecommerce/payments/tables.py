"""What payments keeps: one payment of each order, and the webhooks that it heard."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

TABLES = MetaData()
PAYMENTS = Table(
    "payments",
    TABLES,
    Column("order", String(32), primary_key=True),
    Column("user", String(64), nullable=False),
    # See `rules.Payment`.
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
)
WEBHOOKS = Table(
    "webhooks",
    TABLES,
    Column("id", String(80), primary_key=True),
    # Milliseconds since 1970.
    Column("at", BigInteger, nullable=False, index=True),
)
