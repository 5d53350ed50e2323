"""Rows that are there at most once."""

from __future__ import annotations

from sqlalchemy import Table

from gateway.sql import Transaction, upsert


async def insert_new(db: Transaction, table: Table, row: dict[str, object]) -> bool:
    """Insert ``row`` unless its key is there; say whether it was inserted."""
    return bool((await db.execute(upsert(table, columns=tuple(row)), row)).rowcount)
