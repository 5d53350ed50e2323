"""Leases, items and letters for tests of groups."""

from __future__ import annotations

from typing import Any

import redis.asyncio as client

from gateway.adapters.log import DeadLetter, Lease, Log
from gateway.adapters.log.group import Start
from gateway.core.event import Record
from gateway.core.lanes import Changes, Item
from tests.contracts.log_running import P, draft
from tests.servers import eventually

G = "devices.alerts"
LONG = 60.0
#: Over before anybody can look.
SHORT = 0.001


def at(url: str) -> Any:
    """A plain client; its types do not know what it answers."""
    return client.Redis.from_url(url)


def done(cursor: int, *, oldest: int = 0, parked: tuple[Item, ...] = (), released: tuple[int, ...] = ()) -> Changes:
    return Changes(cursor, oldest or cursor + 1, list(parked), list(released), [], [])


def item(record: Record, attempts: int = 1, due: float = 0.0, error: str = "") -> Item:
    return Item(record.epoch, record.offset, record.event.topic, attempts, due=due, error=error)


def letter(record: Record, reason: str = "rejected", group: str = G) -> DeadLetter:
    event, place = record.event, f"{record.epoch}-{record.offset}"
    return DeadLetter(reason, "why", event.topic, event.data, event.meta, group=group, id=event.id, at=place)


async def filled(log: Log, count: int = 10) -> list[Record]:
    """``count`` events at the offsets from 2 on, as they are read back."""
    await log.append(P, [draft(f"devices/{i % 3}/x", f"id-{i}", b"%d" % i) for i in range(count)])
    return await log.recent_deliveries(P, count)


async def taken(log: Log, worker: str = "w1", ttl: float = LONG, start: Start = "earliest") -> Lease:
    """The lease, as soon as it is to be had."""

    async def attempt() -> Lease | None:
        return await log.groups.take(P, G, worker, start, ttl)

    found: list[Lease] = []

    async def free() -> bool:
        lease = await attempt()
        found.extend([lease] if lease is not None else [])
        return bool(found)

    await eventually(free)
    return found[0]
