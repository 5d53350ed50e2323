"""Rows of which the newest stays."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Table, TextClause

from gateway.sql import upsert


@cache
def replaced(table: Table) -> TextClause:
    """Return the `upsert` whose new row takes the place of the old one."""
    keys = {column.name for column in table.primary_key}
    return upsert(table, ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.columns if c.name not in keys))
