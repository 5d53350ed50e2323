"""What shipping keeps: parcels."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table

TABLES = MetaData()
PARCELS = Table(
    "parcels",
    TABLES,
    Column("order", String(32), primary_key=True),
    # See `rules.Parcel`.
    Column("status", String(16), nullable=False),
    Column("tracking", String(32), nullable=False),
)
