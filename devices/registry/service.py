"""The service ``devices.registry``: who may come in, who is there, and what was wrong with what they sent."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import msgspec

from devices import limits
from devices.events import Presence, Status, Wrong
from devices.readings import BadReading, read
from devices.registry.broker import held, project, tell
from devices.registry.routes import ROUTES, Project
from devices.registry.rules import presence
from devices.registry.tables import DEVICES, PRESENCE, SEEN, TABLES, TIMER
from devices.rows import replaced
from devices.settings import settings
from gateway import Context, Service
from gateway.sql import Database, upsert

_logger = logging.getLogger("devices.registry")
service = Service(
    "registry",
    database=Database(tables=TABLES, migrations="devices.registry.migrations"),
    emits=["devices/{device}/errors", "devices/{device}/presence", "devices/{device}/registered"],
    delays=["devices/registry/project"],
    routes=ROUTES,
)
_SEEN: Final = upsert(SEEN, "seen = CASE WHEN excluded.seen > seen.seen THEN excluded.seen ELSE seen.seen END")


@service.on("devices/{device}/status")
async def status(said: Status, context: Context) -> None:
    db, device = await context.transaction(), context.variables["device"]
    row = (await db.execute(PRESENCE.select().where(PRESENCE.c.device == device))).first()
    old = None if row is None else Presence(row.online, row.boot, row.since)
    now = presence(old, said, context.event.meta.ts)
    if now is not None:
        await db.execute(replaced(PRESENCE), {"device": device, **msgspec.structs.asdict(now)})
        context.emit(f"devices/{device}/presence", now)


@service.on("devices/{device}/telemetry", batch=limits.BATCH)
async def heard(payloads: list[Any], contexts: list[Context]) -> None:
    db = await contexts[0].transaction()
    rows = [{"device": one.variables["device"], "seen": one.event.meta.ts} for one in contexts]
    await db.execute(_SEEN, rows)
    for payload, context in zip(payloads, contexts, strict=True):
        try:
            read(payload, context.event.meta.ts, context.event.id)
        except BadReading as error:
            context.emit(f"devices/{context.variables['device']}/errors", Wrong(context.event.id, str(error)))


@service.on("devices/registry/project", timeout=60)
async def tell_broker(asked: Project, context: Context) -> None:
    """Later than the change that asked for it, and as durable; one at a time, being of one key. Then by a timer."""
    known = settings()
    if not known.broker:
        await _projected(asked, context)
        return
    async with held(known.broker):
        await _projected(asked, context)


async def _projected(asked: Project, context: Context) -> None:
    db, known = await context.transaction(), settings()
    rows = (await db.execute(DEVICES.select().order_by(DEVICES.c.device))).all()
    now, timer = time.time_ns() // 1_000_000, (await db.execute(TIMER.select())).first()
    due, untold = (0, "") if timer is None else (timer.due, timer.untold)
    if due <= now:
        # One timer, begun by the first change; a second early, so that it never finds itself too early.
        due = now + int(limits.RECONCILE_EVERY * 1000) - 1000
        context.later(limits.RECONCILE_EVERY, "devices/registry/project", Project(timer=True))
    if known.broker:
        accounts = {row.device: row.hashed if row.state == "active" else None for row in rows}
        changed = await asyncio.to_thread(project, known.broker, accounts)
        # Also where nothing changed: somebody may have died between the two.
        if known.broker_pid_file and (changed or untold or not asked.timer):
            untold = tell(known.broker_pid_file)
            if untold:
                _logger.error("the broker lets in whom it should not, or the reverse, until it is told: %s", untold)
    await db.execute(replaced(TIMER), {"id": 1, "due": due, "untold": untold[: limits.TEXT_MOST]})
