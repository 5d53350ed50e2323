"""One process under measurement: a worker of ours, an appender, or a peer: ``python -m benchmarks.contestant FOLDER``.

It works until its standard input ends, and then tells what it saw.
"""

from __future__ import annotations

import asyncio
import cProfile
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import sqlalchemy as sa
import uvloop

from benchmarks import orders, peers
from benchmarks.machine import PROFILE
from benchmarks.orders import STOCK, TABLES, Order, Seen, Task, Told
from gateway import Context, Service
from gateway.adapters.log import AppLog, Log
from gateway.sql import Database
from gateway.store import Store
from gateway.worker import Worker

_TAKE = STOCK.update().where(STOCK.c.sku == sa.bindparam("of")).values(n=STOCK.c.n + 1)


def _service(name: str, handler: Callable[..., Awaitable[None]], *, batch: int = 0, database: bool = False) -> Service:
    made = Service(name, emits=["shop/stock/{sku}/taken"], database=Database(tables=TABLES) if database else None)
    made.on("shop/orders/{sku}/placed", batch=batch)(handler)
    return made


async def _worker(task: Task, stop: asyncio.Event) -> Told:
    """No database: the handler does nothing but count."""
    seen = Seen(task)

    async def count(order: Order, context: Context) -> None:
        seen.note(order.n)

    await _work(task, stop, _service(task.name, count))
    return seen.told()


async def _database(task: Task, stop: asyncio.Event) -> Told:
    """An inbox row, an update and an outbox row per event, as the documentation writes it."""
    seen = Seen(task)

    async def take(order: Order, context: Context) -> None:
        db = await context.transaction()
        await db.execute(_TAKE, {"of": order.sku})
        context.emit(f"shop/stock/{order.sku}/taken", order)
        seen.note(order.n)

    await _work(task, stop, _service(task.name, take, database=True))
    return seen.told()


async def _database_batch(task: Task, stop: asyncio.Event) -> Told:
    """The same by a batch handler: one statement for all updates of a batch."""
    seen = Seen(task)

    async def take(batch: list[Order], contexts: list[Context]) -> None:
        db = await contexts[0].transaction()
        await db.execute(_TAKE, [{"of": order.sku} for order in batch])
        for order, context in zip(batch, contexts, strict=True):
            context.emit(f"shop/stock/{order.sku}/taken", order)
            seen.note(order.n)

    await _work(task, stop, _service(task.name, take, batch=task.batch, database=True))
    return seen.told()


async def _work(task: Task, stop: asyncio.Event, service: Service) -> None:
    async with AsyncExitStack() as stack:
        log = await Log.open(task.log, [AppLog("shop")])
        stack.push_async_callback(log.close)
        store: Store | None = None
        if task.database:
            store = await Database(tables=TABLES).open(task.database)
            stack.push_async_callback(store.close)
            await orders.stocked(store)
        await Worker(log, orders.DECLARED, f"shop.{task.name}", service, store=store).run(stop)


async def _append(task: Task, _: asyncio.Event) -> Told:
    """Batches of drafts that exist already, the partitions side by side."""
    async with orders.opened(task.log, task.durability) as log:
        drafts = orders.by_partition(task.count)
        share = task.warm // len(drafts)
        measured = task.count - share * len(drafts)
        await orders.append(log, {partition: mine[:share] for partition, mine in drafts.items()}, task.batch)
        began, cpu = time.monotonic(), time.process_time()
        await orders.append(log, {partition: mine[share:] for partition, mine in drafts.items()}, task.batch)
        return Told(began, measured, cpu, time.monotonic())


KINDS: dict[str, Callable[[Task, asyncio.Event], Awaitable[Told]]] = {
    "worker": _worker,
    "database": _database,
    "database batch": _database_batch,
    "append": _append,
    "faststream": peers.faststream,
    "faststream batch": peers.faststream_batch,
    "redis-py": peers.redis_py,
    "redis-py append": peers.append,
    "sqlite3": peers.sqlite,
    "asyncpg": peers.postgresql,
}


async def _run(folder: Path) -> None:
    task = msgspec.json.decode((folder / "task.json").read_bytes(), type=Task)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    # It also ends where whoever started us died.
    loop.add_reader(sys.stdin.fileno(), stop.set)
    told = await KINDS[task.kind](task, stop)
    sys.stdout.buffer.write(msgspec.json.encode(told))


def main(folder: str) -> None:
    logging.basicConfig(level="WARNING")
    profile = cProfile.Profile() if os.environ.get(PROFILE) else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if profile is None:
            runner.run(_run(Path(folder)))
            return
        profile.runcall(runner.run, _run(Path(folder)))
    profile.dump_stats(f"{os.environ[PROFILE]}.{Path(folder).name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
