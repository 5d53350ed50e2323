"""The peers of a worker: FastStream and redis-py on a consumer group, plain statements on a database, plain XADD."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import time
from typing import Any

import msgspec
import redis
import redis.asyncio

from benchmarks import orders
from benchmarks.orders import STREAM, TABLES, Order, Seen, Task, Told
from gateway import limits
from gateway.adapters.log.entry import checked
from gateway.core.event import Event
from gateway.sql import Database

_encode = msgspec.msgpack.Encoder().encode

#: Where FastStream's entries are, in its own form and field.
FASTSTREAM = "faststream"
#: Entries that one XREADGROUP asks for. Without a number FastStream is handed the whole backlog at once.
_PAGE = 100
#: What a transaction of ours does, on the same tables.
_STATEMENTS = (
    'INSERT INTO gateway_inbox ("group", id, at) VALUES ({}, {}, {}) ON CONFLICT DO NOTHING',
    "UPDATE stock SET n = n + 1 WHERE sku = {}",
    "INSERT INTO gateway_outbox (topic, id, data, meta, due) VALUES ({}, {}, {}, {}, 0)",
)


def fill(log: redis.Redis, stream: str, count: int) -> None:
    """Put the payloads of ``count`` orders where a peer reads them, in its form."""
    entries = (
        asyncio.run(_faststream_entries(count))
        if stream == FASTSTREAM
        else [{"data": orders.payload(n)} for n in range(count)]
    )
    for start in range(0, count, 1_000):
        pipe: Any = log.pipeline(transaction=False)
        for entry in entries[start : start + 1_000]:
            pipe.xadd(stream, entry)
        pipe.execute()


async def _faststream_entries(count: int) -> list[dict[str, bytes]]:
    form: Any = importlib.import_module("faststream.redis.parser").BinaryMessageFormatV1
    # As its publisher says: a reader that is not told that it is JSON guesses, and takes longer.
    headers, found = {"content-type": "application/json"}, []
    for n in range(count):
        made = form.encode(message=orders.payload(n), reply_to=None, headers=headers, correlation_id=f"order-{n}")
        found.append({"__data__": await made})
    return found


async def faststream(task: Task, stop: asyncio.Event) -> Told:
    """One event at a time."""
    seen = Seen(task)

    async def count(order: Any) -> None:
        seen.note(order.n)

    count.__annotations__["order"] = _model()
    await _subscribed(task, stop, count, batch=False)
    return seen.told()


async def faststream_batch(task: Task, stop: asyncio.Event) -> Told:
    """Lists of events, acknowledged list by list."""
    seen = Seen(task)

    async def count(batch: Any) -> None:
        for order in batch:
            seen.note(order.n)

    count.__annotations__["batch"] = list[_model()]  # type: ignore[misc]  # a model that is made here
    await _subscribed(task, stop, count, batch=True)
    return seen.told()


def _model() -> Any:
    # Imported here and by name: only `make bench` installs the bench group.
    pydantic: Any = importlib.import_module("pydantic")
    return pydantic.create_model("Order", n=(int, ...), sku=(str, ...), note=(str, ...))


async def _subscribed(task: Task, stop: asyncio.Event, handler: Any, *, batch: bool) -> None:
    library: Any = importlib.import_module("faststream.redis")
    broker = library.RedisBroker(task.log, logger=None)
    stream = library.StreamSub(FASTSTREAM, group=task.name, consumer="one", batch=batch, max_records=task.batch)
    broker.subscriber(stream=stream)(handler)
    await broker.start()
    await stop.wait()
    await broker.stop()


async def redis_py(task: Task, stop: asyncio.Event) -> Told:
    """XREADGROUP, decode, call, XACK, one event after another."""
    seen, decode = Seen(task), msgspec.json.Decoder(Order).decode
    log: Any = redis.asyncio.Redis.from_url(task.log)

    async def count(order: Order) -> None:
        seen.note(order.n)

    while not stop.is_set():
        for _, entries in await log.xreadgroup(task.name, "one", {STREAM: ">"}, count=_PAGE, block=100):
            for id, fields in entries:
                await count(decode(fields[b"data"]))
                await log.xack(STREAM, task.name, id)
    await log.aclose()
    return seen.told()


async def append(task: Task, _: asyncio.Event) -> Told:
    """XADD of the same fields in pipelines, to as many streams; the fields exist already."""
    log: Any = redis.Redis.from_url(task.log)
    entries = []
    for partition, drafts in orders.by_partition(task.count).items():
        for start in range(0, len(drafts), task.batch):
            entries.append(
                (orders.plain(partition), [_fields(draft.event) for draft in drafts[start : start + task.batch]])
            )
    warm, began, cpu, measured = task.warm // task.batch, 0.0, 0.0, 0
    for number, (stream, batch) in enumerate(entries):
        if number == warm:
            began, cpu = time.monotonic(), time.process_time()
        measured += len(batch) if began else 0
        pipe = log.pipeline(transaction=False)
        for fields in batch:
            pipe.xadd(stream, fields)
        assert len(pipe.execute()) == len(batch)
    return Told(began, measured, cpu, time.monotonic())


def _fields(event: Event) -> dict[str, bytes | int]:
    """What an entry of ours has (`append.lua`); where the newest event of its key is, nobody looks up."""
    topic, id = event.topic.encode(), event.id.encode()
    meta = checked(event.meta, topic, id, event.data)
    return {
        "topic": topic,
        "id": id,
        "data": event.data,
        "prev": 0,
        "meta": meta,
        "key": event.topic.split("/")[2].encode(),
    }


# --- a database ---


async def sqlite(task: Task, _: asyncio.Event) -> Told:
    """The module sqlite3, ``task.batch`` events to a commit."""
    await _made(task)
    seen, (claim, take, put) = Seen(task), (text.format(*"?????") for text in _STATEMENTS)
    db = sqlite3.connect(task.database.removeprefix("sqlite:///"), isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    rows = [_row(n) for n in range(task.count)]
    for start in range(0, task.count, task.batch):
        db.execute("BEGIN IMMEDIATE")
        for n, (claimed, sku, fact) in enumerate(rows[start : start + task.batch], start):
            db.execute(claim, claimed)
            db.execute(take, sku)
            db.execute(put, fact)
            seen.note(n)
        db.execute("COMMIT")
    ended = time.monotonic()
    db.close()
    return seen.told(ended)


async def postgresql(task: Task, _: asyncio.Event) -> Told:
    """The library asyncpg, one event to a commit, on as many connections as a worker of ours has."""
    asyncpg: Any = importlib.import_module("asyncpg")
    await _made(task)
    seen, numbers = Seen(task), iter(range(task.count))
    claim, take, put = (text.format(*(f"${n}" for n in range(1, 6))) for text in _STATEMENTS)

    async def work() -> None:
        db = await asyncpg.connect(task.database)
        for n in numbers:
            claimed, sku, fact = _row(n)
            async with db.transaction():
                await db.execute(claim, *claimed)
                await db.execute(take, *sku)
                await db.execute(put, *fact)
            seen.note(n)
        await db.close()

    await asyncio.gather(*(work() for _ in range(limits.DATABASE_CONNECTIONS)))
    return seen.told(time.monotonic())


async def _made(task: Task) -> None:
    store = await Database(tables=TABLES).open(task.database)
    await orders.stocked(store)
    await store.close()


def _row(n: int) -> tuple[tuple[str, str, int], tuple[str], tuple[str, str, bytes, bytes]]:
    event = orders.draft(n).event
    claimed = ("shop.peer", event.id, event.meta.ts)
    return claimed, (orders.sku(n),), (event.topic, f"fact-{n}", event.data, _encode(event.meta))
