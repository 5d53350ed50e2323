"""What the simulated acquirer keeps: one charge of each order."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

TABLES = MetaData()
CHARGES = Table(
    "charges",
    TABLES,
    Column("order", String(32), primary_key=True),
    # See `rules.Charge`.
    Column("status", String(16), nullable=False),
    # The newest try: an older number is one that came twice.
    Column("attempt", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
)
