"""The service ``devices.storage``: keeps every reading once, and what the readings of a minute and an hour were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from devices import limits
from devices.arrivals import forget, fresh
from devices.readings import BadReading, Reading, read
from devices.storage.rollup import SIZES, latest, rollups, runs
from devices.storage.routes import ROUTES
from devices.storage.tables import ARRIVALS, LATEST, POINTS, ROLLUPS, RUNS, TABLES
from gateway import Context, Rejected, Service
from gateway.sql import Database, Transaction, find, upsert

service = Service("storage", database=Database(tables=TABLES, migrations="devices.storage.migrations"), routes=ROUTES)
_ROLLED: Final = upsert(
    ROLLUPS,
    "count = rollups.count + excluded.count, total = rollups.total + excluded.total, "
    "least = CASE WHEN excluded.least < rollups.least THEN excluded.least ELSE rollups.least END, "
    "most = CASE WHEN excluded.most > rollups.most THEN excluded.most ELSE rollups.most END",
)
_LATEST: Final = upsert(LATEST, "ts = excluded.ts, value = excluded.value", "excluded.ts >= latest.ts")
_RUN: Final = upsert(
    RUNS,
    "first = CASE WHEN excluded.first < runs.first THEN excluded.first ELSE runs.first END, "
    "last = CASE WHEN excluded.last > runs.last THEN excluded.last ELSE runs.last END, "
    "ts = CASE WHEN excluded.ts > runs.ts THEN excluded.ts ELSE runs.ts END, "
    "received = runs.received + excluded.received, doubled = runs.doubled + excluded.doubled",
)


@service.on("devices/{device}/telemetry", batch=limits.BATCH)
async def store(payloads: list[Any], contexts: list[Context]) -> None:
    came: list[tuple[str, Reading]] = []
    for payload, context in zip(payloads, contexts, strict=True):
        try:
            readings = read(payload, context.event.meta.ts, context.event.id)
        except BadReading as error:
            # Of the services that hear it, this one keeps what is wrong: there it can be mended and replayed.
            raise Rejected(str(error)) from None
        came += [(context.variables["device"], one) for one in readings]
    db = await contexts[0].transaction()
    new = await fresh(db, ARRIVALS, came)
    if told := runs(came, new):
        # `runs` is in the order of what came; of each run there is one row.
        await db.execute(_RUN, [_row(RUNS, *key, *_fields(run)) for key, run in told.items()])
    if not new:
        return
    await db.execute(
        POINTS.insert(),
        [
            _row(POINTS, device, metric, one.ts, one.boot, one.seq, value)
            for device, one in new
            for metric, value in one.values.items()
        ],
    )
    added = rollups(new)
    await _forget(db, added)
    await db.execute(_ROLLED, [_row(ROLLUPS, *key, *_fields(one)) for key, one in added.items()])
    await db.execute(_LATEST, [_row(LATEST, *key, *newest) for key, newest in latest(new).items()])


async def _forget(db: Transaction, added: Any) -> None:
    """Delete what is too old, of those series that begin another hour: once an hour and series, and no timer."""
    of, begun = ROLLUPS.c, {key for key in added if key[2] == SIZES["hour"]}
    known = {(row.device, row.metric, row.size, row.start) for row in await find(db, ROLLUPS, begun)}
    for device, metric, _, start in begun - known:
        old = (POINTS.c.device == device, POINTS.c.metric == metric, POINTS.c.ts < start - limits.RAW_KEPT)
        await db.execute(POINTS.delete().where(*old))
        minutes = (of.size == SIZES["minute"], of.start < start - limits.MINUTES_KEPT)
        await db.execute(ROLLUPS.delete().where(of.device == device, of.metric == metric, *minutes))
        await forget(db, ARRIVALS, device, start - limits.RAW_KEPT)
        await db.execute(RUNS.delete().where(RUNS.c.device == device, RUNS.c.ts < start - limits.MINUTES_KEPT))


def _row(table: Any, *values: object) -> dict[str, object]:
    return dict(zip(table.columns.keys(), values, strict=True))


def _fields(one: Any) -> Sequence[object]:
    return [getattr(one, name) for name in one.__struct_fields__]
