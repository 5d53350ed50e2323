"""Rows that are there at most once: what SQLite and PostgreSQL spell alike, and SQLAlchemy in two ways."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Table, TextClause, bindparam, text

from gateway.sql import Transaction


async def insert_new(db: Transaction, table: Table, row: dict[str, object]) -> bool:
    """Insert ``row`` unless its key is there; say whether it was inserted."""
    return bool((await db.execute(_statement(table, tuple(row)), row)).rowcount)


@cache
def _statement(table: Table, names: tuple[str, ...]) -> TextClause:
    quoted = ", ".join(f'"{name}"' for name in names)
    made = text(
        f'INSERT INTO "{table.name}" ({quoted}) VALUES (:{", :".join(names)}) ON CONFLICT DO NOTHING'  # noqa: S608 - the names are those of our own columns
    )
    return made.bindparams(*(bindparam(name, type_=table.c[name].type) for name in names))
