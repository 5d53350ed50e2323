"""What a reading costs does not grow with what is kept: no statement reads a table that grows from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from devices.storage.tables import ARRIVALS, TABLES
from tests.devices.fleet import HOUR, open_fleet

#: Tables that have more rows with each reading, device or window; `this` is what `gateway.sql.find` calls its one.
GROWING = {"arrivals", "history", "latest", "marks", "points", "rollups", "runs", "windows", "this"}


class Plans:
    """SQLite's plan of each statement, asked when it is executed for the first time."""

    def __init__(self) -> None:
        self.statements: set[str] = set()
        self.scans: list[str] = []

    def explain(
        self, connection: sa.Connection, _: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if statement in self.statements or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        self.statements.add(statement)
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters)
        words = [str(step[3]).split() for step in cursor.fetchall()]
        self.scans += [statement for verb, table, *_ in words if verb == "SCAN" and table in GROWING]


@pytest.fixture
def plans() -> Iterator[Plans]:
    made = Plans()
    sa.event.listen(sa.Engine, "before_cursor_execute", made.explain)
    yield made
    sa.event.remove(sa.Engine, "before_cursor_execute", made.explain)


async def test_no_statement_reads_all_that_is_kept(plans: Plans) -> None:
    async with open_fleet() as fleet:
        for device in ("one", "two"):
            minutes = [(n, HOUR + n * 60_000, 20.0 + n) for n in range(12)]
            await fleet.says(device, *minutes)
            await fleet.says(device, (1, HOUR + 7, 1.0), boot="c", m={"temp": 1.0, "wind": 2.0})
            await fleet.says(device, (40, HOUR + 2_000_000, 30.0), (3, HOUR + 3 * 60_000, 23.0), (41, HOUR + 1, 1.0))
        await fleet.rests()
        of = "/devices/storage/one"
        series = [f"{of}/series/temp?begin={HOUR}&level={level}&" for level in ("raw", "minute", "hour")]
        for path in (f"{of}/latest?", f"{of}/losses?", *series):
            if after := (await fleet.get(f"{path}limit=1"))["next"]:
                await fleet.get(f"{path}limit=1&after={quote(after)}")
        await fleet.get(f"{of}/series/temp?begin={HOUR}&points=60")
        await fleet.get("/devices/analytics/one/watermark")
    told = " ".join(plans.statements)
    assert {table for table in GROWING if table in told} == GROWING
    assert plans.scans == []


def test_one_that_reads_everything_is_found(plans: Plans) -> None:
    engine = sa.create_engine("sqlite://")
    TABLES.create_all(engine)
    key = sa.tuple_(ARRIVALS.c.device, ARRIVALS.c.boot, ARRIVALS.c.seq)
    with engine.connect() as db:
        db.execute(ARRIVALS.select().where(key.in_([("one", "b", 1), ("two", "b", 2)])))
    assert len(plans.scans) == 1
