"""What the catalog keeps: articles."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table

TABLES = MetaData()
ARTICLES = Table(
    "articles",
    TABLES,
    Column("sku", String(32), primary_key=True),
    Column("title", String(120), nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("sold", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
)
