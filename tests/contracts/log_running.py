"""A log with its background work running, and drafts to append to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from gateway.adapters.log import AppLog, Batch, Log, Tail
from gateway.core.event import Appended, Draft, Event, Meta, Partition
from gateway.errors import GatewayError

#: Longer than anything honest takes, for waits that must end.
HANG = 20.0
P: Partition = "devices.0"


@asynccontextmanager
async def running(url: str, *, partitions: int = 1, **promise: object) -> AsyncIterator[Log]:
    """The log of one application named ``devices``; ``promise`` are fields of `AppLog`."""
    log = await Log.open(url, [msgspec.convert({"app": "devices", **promise}, AppLog)], partitions=partitions)
    task = asyncio.create_task(log.run(), name="log")
    try:
        yield log
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await log.close()


def draft(
    topic: str,
    id: str,
    data: bytes = b"{}",
    *,
    key: str = "",
    retain: bool = False,
    replayed: bool = False,
    idempotency: str = "",
    meta: Meta | None = None,
) -> Draft:
    event = Event(topic, data, id, meta or Meta())
    return Draft(event, key or topic, retain=retain, replayed=replayed, idempotency=idempotency)


def offsets(answers: Sequence[Appended | GatewayError]) -> list[int]:
    """Where they stand; raises the first refusal."""
    found = []
    for answer in answers:
        if isinstance(answer, GatewayError):
            raise answer
        found.append(answer.position.offset)
    return found


async def following(tail: Tail) -> Batch:
    """The next batch, or a failure instead of a hang."""
    return await asyncio.wait_for(anext(tail), HANG)
