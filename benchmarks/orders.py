"""Orders of many keys: what services are measured with, what they do, and whether all of it was done once."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import redis
import sqlalchemy as sa

from gateway import Topic, limits
from gateway.adapters.log import AppLog, Log
from gateway.adapters.log.keys import group_part, log_key, part
from gateway.app import Durability
from gateway.core.declared import Declared
from gateway.core.event import Appended, Draft, Event, Meta, Partition
from gateway.store import Store

TOPICS = (
    Topic(pattern="shop/orders/{sku}/placed", key="{sku}"),
    Topic(pattern="shop/stock/{sku}/taken", key="{sku}"),
)
DECLARED = Declared(TOPICS)
#: Where redis-py reads the same payloads: one stream, one field ``data``. FastStream reads its own form elsewhere.
STREAM = "plain"
KEYS = 1_000
PARTITIONS = AppLog("shop").partitions(limits.PARTITIONS)

#: Entries that are no events: each partition's log begins with its epoch.
EPOCHS = len(PARTITIONS)

TABLES = sa.MetaData()
STOCK = sa.Table("stock", TABLES, sa.Column("sku", sa.String(40), primary_key=True), sa.Column("n", sa.Integer))


class Order(msgspec.Struct):
    """128 bytes of JSON."""

    n: int
    sku: str
    note: str


class Task(msgspec.Struct, frozen=True):
    """What one process does, as ``task.json`` in its folder."""

    kind: str
    log: str
    #: The group's name, new for each round.
    name: str
    #: Events, of which the first ``warm`` are not measured.
    count: int
    warm: int
    database: str = ""
    #: Events of one call, one commit or one append.
    batch: int = 0
    durability: Durability = "disk"


class Told(msgspec.Struct, frozen=True):
    """What the process says of itself in the end."""

    #: By the monotonic clock, when the warm-up was over; and when the last was done, where it knows.
    began: float
    #: Events after that, and seconds of CPU before it.
    measured: int
    cpu: float
    ended: float = 0.0
    #: Orders that the handler did not see, or saw more than once.
    lost: int = 0
    doubled: int = 0


async def stocked(store: Store) -> None:
    """Put a row of each key into a new database."""
    work = await store.begin()
    await work.execute(STOCK.insert(), [{"sku": sku(n), "n": 0} for n in range(KEYS)])
    await work.commit()


class Seen:
    """What the handlers of every contestant do: they count."""

    def __init__(self, task: Task) -> None:
        self._times = bytearray(task.count)
        self._calls, self._warm = 0, task.warm
        self._began = self._cpu = 0.0

    def note(self, n: int) -> None:
        self._times[n] += 1
        self._calls += 1
        if self._calls == self._warm:
            self._began, self._cpu = time.monotonic(), time.process_time()

    def told(self, ended: float = 0.0) -> Told:
        times, measured = self._times, len(self._times) - self._warm
        return Told(self._began, measured, self._cpu, ended, times.count(0), sum(1 for one in times if one > 1))


def payload(n: int) -> bytes:
    head = b'{"n":%d,"sku":"%s","note":"' % (n, sku(n).encode())
    return head + b"x" * (126 - len(head)) + b'"}'


def sku(n: int) -> str:
    return f"s{n % KEYS}"


def draft(n: int) -> Draft:
    event = Event(f"shop/orders/{sku(n)}/placed", payload(n), f"order-{n}", Meta(ts=time.time_ns() // 1_000_000))
    return Draft(event, sku(n))


@asynccontextmanager
async def opened(url: str, durability: Durability = "disk") -> AsyncIterator[Log]:
    """The log, writing until the end of the block."""
    log = await Log.open(url, [AppLog("shop", durability)])
    running = asyncio.create_task(log.run(), name="log")
    try:
        yield log
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await log.close()


def by_partition(count: int) -> dict[Partition, list[Draft]]:
    """Return ``count`` orders in the partitions of their keys."""
    found: defaultdict[Partition, list[Draft]] = defaultdict(list)
    for one in map(draft, range(count)):
        found[DECLARED.find(one.event.topic).partition].append(one)
    return found


async def fill(url: str, count: int) -> None:
    """Append ``count`` orders for our workers."""
    async with opened(url) as log:
        await append(log, by_partition(count), 500)


async def append(log: Log, drafts: dict[Partition, list[Draft]], batch: int) -> None:
    """Append so many at a time to each partition, the partitions side by side; each must be stored, and be new."""

    async def all_of(partition: Partition, mine: list[Draft]) -> None:
        for start in range(0, len(mine), batch):
            answers = await log.append(partition, mine[start : start + batch], patient=True)
            assert all(isinstance(answer, Appended) and not answer.duplicate for answer in answers), answers

    await asyncio.gather(*(all_of(partition, mine) for partition, mine in drafts.items()))


def stored(log: redis.Redis) -> int:
    """Return how many entries the application's log was ever given (XINFO STREAM)."""
    asked = log.pipeline(transaction=False)
    for partition in PARTITIONS:
        asked.xinfo_stream(log_key(partition))
    return sum(int(answer["entries-added"]) for answer in asked.execute())


def at_rest(log: redis.Redis, group: str) -> bool:
    """Say whether ``group`` has acknowledged everything and nothing of it waits for another try."""
    asked = log.pipeline(transaction=False)
    for partition in PARTITIONS:
        asked.xinfo_stream(log_key(partition))
        asked.hget(group_part(partition, group), "cursor")
        asked.hlen(group_part(partition, group, "parked"))
    found = asked.execute()
    return all(
        cursor is not None and not parked and int(cursor) >= int(info["last-generated-id"].rpartition(b"-")[2])
        for info, cursor, parked in zip(found[::3], found[1::3], found[2::3], strict=True)
    )


def plain(partition: Partition) -> str:
    """Return the stream in which a peer appends what we append to ``partition``."""
    return f"plain.{partition}"


def letters(log: redis.Redis) -> int:
    """Return how many dead letters there are."""
    return sum(int(log.xlen(part(partition, "dead"))) for partition in PARTITIONS)


def facts(log: redis.Redis) -> list[bytes]:
    """Return the ids of what the service emitted, a double twice."""
    pages: list[Any] = [log.xrange(log_key(partition)) for partition in PARTITIONS]
    entries: Iterator[dict[bytes, bytes]] = (fields for page in pages for _, fields in page)
    return [fields[b"id"] for fields in entries if fields.get(b"topic", b"").startswith(b"shop/stock/")]


def acknowledged(log: redis.Redis, stream: str, group: str) -> bool:
    """Say whether a consumer group has read and acknowledged all of a stream (XINFO GROUPS)."""
    (found,) = (one for one in log.xinfo_groups(stream) if one["name"] == group.encode())
    return not found["pending"] and not found["lag"]
