"""Which readings came already: by (device, boot, seq), so that each counts once however often it is sent."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table

from devices.readings import Reading
from gateway.sql import Transaction, find


def arrivals(tables: MetaData) -> Table:
    """Add the table to ``tables``, and return it."""
    made = Table(
        "arrivals",
        tables,
        Column("device", String(64), primary_key=True),
        Column("boot", String(160), primary_key=True),
        Column("seq", BigInteger, primary_key=True),
        Column("ts", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    Index("arrivals_by_time", made.c.device, made.c.ts)
    return made


async def fresh(db: Transaction, table: Table, found: Iterable[tuple[str, Reading]]) -> list[tuple[str, Reading]]:
    """Return those of ``found``, by device, that came for the first time, and note them."""
    by_key = {(device, reading.boot, reading.seq): reading for device, reading in found}
    known = {(row.device, row.boot, row.seq) for row in await find(db, table, by_key)}
    new = [(device, reading) for (device, boot, seq), reading in by_key.items() if (device, boot, seq) not in known]
    if new:
        # Whoever else noted one meanwhile makes this fail, and the event comes again.
        rows = [{"device": device, "boot": one.boot, "seq": one.seq, "ts": one.ts} for device, one in new]
        await db.execute(table.insert(), rows)
    return new


async def forget(db: Transaction, table: Table, device: str, before: int) -> None:
    """Delete what ``device`` measured before ``before``: nothing that old is taken any more."""
    await db.execute(table.delete().where(table.c.device == device, table.c.ts < before))
