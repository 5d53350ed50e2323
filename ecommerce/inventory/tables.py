"""What inventory keeps: stock, what is kept for whom, and what came in."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, MetaData, String, Table

TABLES = MetaData()
STOCK = Table(
    "stock",
    TABLES,
    Column("sku", String(32), primary_key=True),
    Column("on_hand", Integer, nullable=False),
    # Of what is on hand, what is promised to orders. Never more: the database itself refuses it.
    Column("reserved", Integer, nullable=False),
    CheckConstraint("reserved >= 0 AND reserved <= on_hand", name="never_oversold"),
)
RESERVATIONS = Table(
    "reservations",
    TABLES,
    Column("order", String(32), primary_key=True),
    # See `rules.Reservation`.
    Column("status", String(16), nullable=False),
)
#: What one reservation is of; nothing, where it fell short.
PARTS = Table(
    "parts",
    TABLES,
    Column("order", String(32), primary_key=True),
    Column("sku", String(32), primary_key=True),
    Column("quantity", Integer, nullable=False),
)
RECEIPTS = Table(
    "receipts",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("sku", String(32), nullable=False, index=True),
    Column("quantity", Integer, nullable=False),
)
