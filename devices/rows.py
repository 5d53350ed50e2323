"""Rows that are added or changed by one statement, in SQLite and PostgreSQL alike."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Table, TextClause, bindparam, text


@cache
def upsert(table: Table, change: str = "", where: str = "") -> TextClause:
    """Return the ``INSERT`` into ``table`` that, where its key is there, does nothing, or ``SET change WHERE where``.

    In both texts ``excluded`` is the new row. Its parameters are the columns.
    """
    names = [column.name for column in table.columns]
    quoted, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
    key = ", ".join(f'"{column.name}"' for column in table.primary_key)
    then = f"DO UPDATE SET {change}" + (f" WHERE {where}" if where else "") if change else "DO NOTHING"
    made = text(
        f'INSERT INTO "{table.name}" ({quoted}) VALUES ({values}) ON CONFLICT ({key}) {then}'  # noqa: S608 - the names are those of our own columns
    )
    return made.bindparams(*(bindparam(name, type_=table.c[name].type) for name in names))


def replaced(table: Table) -> TextClause:
    """Return the `upsert` whose new row takes the place of the old one."""
    keys = {column.name for column in table.primary_key}
    return upsert(table, ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.columns if c.name not in keys))
