"""The service ``devices.analytics``: tells what each series did in each window, and how unusual it was."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from devices import limits
from devices.analytics.routes import ROUTES
from devices.analytics.sketch import quantiles, with_values
from devices.analytics.tables import ARRIVALS, HISTORY, MARKS, TABLES, WINDOWS
from devices.analytics.windows import Span, forgotten, over, remembered, score, start, watermark
from devices.arrivals import forget, fresh
from devices.events import Window
from devices.readings import BadReading, Reading, read
from devices.rows import replaced
from gateway import Context, Service
from gateway.sql import Database, Transaction, find

service = Service(
    "analytics",
    database=Database(tables=TABLES, migrations="devices.analytics.migrations"),
    emits=["devices/{device}/windows/{metric}"],
    routes=ROUTES,
)


@service.on("devices/{device}/telemetry", batch=limits.BATCH)
async def measure(payloads: list[Any], contexts: list[Context]) -> None:
    db = await contexts[0].transaction()
    came: list[tuple[str, Reading]] = []
    for payload, context in zip(payloads, contexts, strict=True):
        try:
            readings = read(payload, context.event.meta.ts, context.event.id)
        except BadReading:
            continue  # storage tells
        came += [(context.variables["device"], one) for one in readings]
    new: defaultdict[str, list[Reading]] = defaultdict(list)
    for device, one in await fresh(db, ARRIVALS, came):
        new[device].append(one)
    rows = await db.execute(MARKS.select().where(MARKS.c.device.in_(list(new))))
    marks = {row.device: (row.newest, row.late) for row in rows}
    added: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    due: set[str] = set()
    for device, some in new.items():
        newest, late = marks.get(device, (0, 0))
        # What is too late is so by what was known before this delivery: a batch is not late for its own newest reading.
        mark = watermark(newest)
        for one in some:
            begin = start(one.ts)
            late += forgotten(begin, mark)
            if not forgotten(begin, mark):
                for metric, value in one.values.items():
                    added[device, metric, begin].append(value)
        newest = max([newest, *(one.ts for one in some)])
        marks[device] = (newest, late)
        # Nothing else can have come to its end: most deliveries end no window, and need not ask.
        if start(watermark(newest)) > start(mark) or any(over(start(one.ts), mark) for one in some):
            due.add(device)
    if not new:
        return
    await db.execute(replaced(MARKS), [{"device": d, "newest": marks[d][0], "late": marks[d][1]} for d in new])
    if added:
        await _add(db, added)
    for device, context in {context.variables["device"]: context for context in contexts}.items():
        if device in due:
            await _tell(db, context, device, watermark(marks[device][0]))


async def _add(db: Transaction, added: dict[tuple[str, str, int], list[float]]) -> None:
    known = {(row.device, row.metric, row.start): row for row in await find(db, WINDOWS, added)}
    rows = []
    for (device, metric, begin), values in added.items():
        old = known.get((device, metric, begin))
        span = Span() if old is None else _span(old)
        for value in values:
            span = span.with_value(value)
        rows.append(
            {
                "device": device,
                "metric": metric,
                "start": begin,
                **msgspec.structs.asdict(span),
                "sketch": with_values(b"" if old is None else old.sketch, values),
                "revision": 0 if old is None else old.revision,
                "untold": True,
            }
        )
    await db.execute(replaced(WINDOWS), rows)


async def _tell(db: Transaction, context: Context, device: str, mark: int) -> None:
    """Tell the windows of ``device`` that are over by now, or were and changed; forget what takes late data no more."""
    of = WINDOWS.c
    due = WINDOWS.select().where(of.device == device, of.untold.is_(True), of.start <= mark - limits.WINDOW)
    rows = (await db.execute(due.order_by(of.start))).all()
    if not rows:
        return
    past = await db.execute(HISTORY.select().where(HISTORY.c.device == device))
    means = {row.metric: msgspec.json.decode(row.means, type=list[tuple[int, float]]) for row in past}
    for row in rows:
        span, history = _span(row), means.get(row.metric, [])
        unusual = score(span.mean, [mean for begin, mean in history if begin < row.start])
        half, most, nearly = quantiles(row.sketch)
        told = Window(
            row.start, row.start + limits.WINDOW, span.count, span.mean, span.least, span.most, half, most, nearly,
            unusual, unusual is not None and abs(unusual) >= limits.UNUSUAL, row.revision,
        )  # fmt: skip
        context.emit(f"devices/{device}/windows/{row.metric}", told)
        means[row.metric] = remembered(history, row.start, span.mean)
        this = WINDOWS.update().where(of.device == device, of.metric == row.metric, of.start == row.start)
        await db.execute(this.values(untold=False, revision=row.revision + 1))
    kept = [{"device": device, "metric": metric, "means": msgspec.json.encode(m)} for metric, m in means.items()]
    await db.execute(replaced(HISTORY), kept)
    old = mark - limits.WINDOW - limits.WINDOW_KEPT
    await db.execute(WINDOWS.delete().where(of.device == device, of.untold.is_(False), of.start <= old))
    await forget(db, ARRIVALS, device, mark - limits.RAW_KEPT)


def _span(row: Any) -> Span:
    # A row has a method `count` of its own.
    return Span(row._mapping["count"], row.total, row.least, row.most)
