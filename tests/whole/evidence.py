"""What there is to see once all is over: the log, every service's rows, the dead letters; and whether all is over."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import msgspec
from sqlalchemy import Table, column, func, select, table

from gateway.store import Reading
from tests.ecommerce.books import TABLES, Books
from tests.servers import eventually
from tests.whole.stage import SERVICES, WITHIN, Whole

Rows = list[dict[str, Any]]
_OUTBOX: Final = table("gateway_outbox", column("due"))
_SAGAS: Final = table("gateway_saga", column("ended"))


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, as operators list it."""

    group: str
    reason: str
    topic: str
    id: str
    error: str


class Told(msgspec.Struct, frozen=True):
    """An event, as `gateway tail --json` prints it."""

    topic: str
    id: str
    ts: int
    data: Any


async def rows(stage: Whole, group: str, *tables: Table) -> list[Rows]:
    """Return all rows of tables of one service, read at one moment."""
    store = await _opened(stage, group)
    try:
        async with store.read() as db:
            return [[dict(row._mapping) for row in await db.execute(one.select())] for one in tables]
    finally:
        await store.close()


async def books(stage: Whole) -> Books:
    """Return what `tests.ecommerce.books` checks."""
    found = {name: (await rows(stage, f"ecommerce.{of}", one))[0] for name, (of, one) in TABLES.items()}
    return Books(**found)


async def log(stage: Whole) -> list[Told]:
    """Return the events of all logs, those of one key in their order, each id once."""
    lines = await asyncio.to_thread(stage.ran, "tail", "--from", "earliest", "--no-follow", "--json")
    found: dict[str, Told] = {}
    for line in lines.splitlines():
        one = msgspec.convert(json.loads(line), Told)
        found.setdefault(one.id, one)  # what comes twice counts when it came first
    return list(found.values())


async def letters(stage: Whole) -> list[Letter]:
    found, after = list[Letter](), ""
    while True:
        page = await stage.ask("GET", f"/dead?limit=100&after={after}")
        found += [msgspec.convert(one, Letter) for one in page["letters"]]
        if page["next"] is None:
            return found
        after = page["next"]


async def rests(stage: Whole) -> None:
    """Wait until every service has handled all there is, no outbox has more to give, and every saga has ended."""

    async def still() -> bool:
        await asyncio.sleep(0.3)  # to look costs what is looked at
        before = await _standing(stage)
        return before is not None and await _empty(stage) and before == await _standing(stage)

    await eventually(still, WITHIN)


async def _standing(stage: Whole) -> list[tuple[str, str, int]] | None:
    groups = (await stage.ask("GET", "/groups"))["groups"]
    if any(one["lag"] or one["parked"] for one in groups):
        return None
    return [(one["group"], one["partition"], one["cursor"]) for one in groups]


async def _empty(stage: Whole) -> bool:
    for group in SERVICES:
        store = await _opened(stage, group)
        try:
            async with store.read() as db:
                if await _open(db):
                    return False
        finally:
            await store.close()
    return True


async def _open(db: Reading) -> bool:
    """Something leaves now, or a saga goes on. What is to leave later are timers."""
    due = select(func.count()).select_from(_OUTBOX).where(_OUTBOX.c.due <= time.time_ns() // 1_000_000)
    running = select(func.count()).select_from(_SAGAS).where(_SAGAS.c.ended.is_(None))
    return bool(await db.scalar(due)) or bool(await db.scalar(running))


async def _opened(stage: Whole, group: str) -> Any:
    database = SERVICES[group].database
    assert database is not None
    return await database.open(stage.url_of(group))
