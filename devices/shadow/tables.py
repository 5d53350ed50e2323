"""The tables of the shadows."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, MetaData, String, Table

TABLES = MetaData()
SHADOWS = Table(
    "shadows",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    #: Whether something is wanted that is not so yet.
    Column("pending", Boolean, nullable=False),
    #: When the last change came, in ms.
    Column("changed", BigInteger, nullable=False),
    #: A `rules.Shadow`, as JSON.
    Column("said", LargeBinary, nullable=False),
)
