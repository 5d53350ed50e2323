"""Rows by many keys: one statement that SQLite and PostgreSQL alike answer by the index."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, text

from gateway import limits
from gateway.store import Reading

if TYPE_CHECKING:
    from sqlalchemy import Executable, Row


async def find(db: Reading, table: Table, keys: Collection[tuple[object, ...]]) -> list[Row[Any]]:
    """Return those rows of ``table`` whose primary key is one of ``keys``, tuples in the order of its columns.

    It reads no other row; for ``(a, b) IN (VALUES …)`` SQLite reads them all. Raises as :meth:`Reading.execute`.
    """
    found, wanted = list["Row[Any]"](), list(keys)
    for first in range(0, len(wanted), limits.KEYS_AT_ONCE):
        some = wanted[first : first + limits.KEYS_AT_ONCE]
        # Of few sizes, so that each statement is prepared once; NULL, which fills it up, equals nothing.
        size = 1 << (len(some) - 1).bit_length()
        some += [(None,) * len(table.primary_key)] * (size - len(some))
        asked = {f"k{row}_{place}": part for row, key in enumerate(some) for place, part in enumerate(key)}
        found += (await db.execute(_made(table, size), asked)).all()
    return found


@cache
def _made(table: Table, size: int) -> Executable:
    key = list(table.primary_key)
    wanted = ", ".join("(" + ", ".join(f":k{row}_{place}" for place in range(len(key))) + ")" for row in range(size))
    columns = ", ".join(f'this."{column.name}"' for column in table.columns)
    names = ", ".join(f"k{place}" for place in range(len(key)))
    equal = " AND ".join(f'this."{column.name}" = wanted.k{place}' for place, column in enumerate(key))
    # SQLite takes tables that are crossed in their order: the keys first.
    made = text(
        f'WITH wanted ({names}) AS (VALUES {wanted}) SELECT {columns} FROM wanted CROSS JOIN "{table.name}" AS this WHERE {equal}'  # noqa: E501, S608 - the names are those of our own columns
    )
    typed = (bindparam(f"k{row}_{place}", type_=column.type) for row in range(size) for place, column in enumerate(key))
    return made.bindparams(*typed).columns(*table.columns)
