"""A row that may be there already: inserted, or changed, or left, by one statement of SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Table, TextClause, bindparam, text


def upsert(table: Table, change: str = "", where: str = "", *, columns: Sequence[str] = ()) -> TextClause:
    """Return the ``INSERT`` into ``table`` that does nothing where its row is there, or ``SET change WHERE where``.

    In both texts ``excluded`` is the new row. Its parameters are ``columns``, by default all. Without ``change`` any
    unique constraint counts, with it the primary key (both servers' INSERT, ON CONFLICT).
    """
    return _made(table, change, where, tuple(columns) or tuple(column.name for column in table.columns))


@cache
def _made(table: Table, change: str, where: str, names: tuple[str, ...]) -> TextClause:
    quoted, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
    key = ", ".join(f'"{column.name}"' for column in table.primary_key)
    then = f"({key}) DO UPDATE SET {change}" + (f" WHERE {where}" if where else "") if change else "DO NOTHING"
    made = text(
        f'INSERT INTO "{table.name}" ({quoted}) VALUES ({values}) ON CONFLICT {then}'  # noqa: S608 - the names are those of our own columns
    )
    return made.bindparams(*(bindparam(name, type_=table.c[name].type) for name in names))
