"""What orders keeps: orders, prices as last heard, answers to idempotency keys. Milliseconds since 1970."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table

TABLES = MetaData()
ORDERS = Table(
    "orders",
    TABLES,
    # Sorts by the time it was placed.
    Column("id", String(32), primary_key=True),
    Column("user", String(64), nullable=False),
    # Three axes: see `rules`.
    Column("status", String(16), nullable=False),
    Column("payment", String(20), nullable=False),
    Column("fulfilment", String(20), nullable=False),
    # Why it ends as it does, once it turns back.
    Column("reason", String(16), nullable=False),
    Column("detail", String(200), nullable=False),
    # JSON of its lines.
    Column("lines", LargeBinary, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("placed", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("ended", BigInteger),
)
Index("orders_of_a_user", ORDERS.c.user, ORDERS.c.id)
#: The catalog, as it was told.
PRICES = Table(
    "prices",
    TABLES,
    Column("sku", String(32), primary_key=True),
    Column("price", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("sold", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
)
KEYS = Table(
    "keys",
    TABLES,
    Column("user", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    # SHA-256 of what was asked.
    Column("asked", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)
