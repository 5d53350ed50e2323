"""The lag of a group right after trimming: the entries it still has to read, and not those that are gone."""

from __future__ import annotations

import asyncio
from typing import cast

from gateway import App, Context, Event, Service, Topic
from gateway.adapters.log import AppLog, GroupState, Lease, Log
from gateway.adapters.log.entry import position
from gateway.adapters.log.keys import log_key
from gateway.app import declare
from gateway.core.lanes import Changes, Item
from gateway.settings import GatewayTable, Settings
from gateway.worker import Worker
from tests.contracts.log_running import P, draft, offsets, running
from tests.servers import eventually

GROUP = "devices.slow"
EVENTS = 30


async def _begun(log: Log) -> Lease:
    await _append(log, EVENTS)
    lease = await log.groups.take(P, GROUP, "w", "earliest", 60.0)
    assert lease is not None
    return lease


async def _append(log: Log, count: int) -> None:
    offsets(await log.append(P, [draft(f"devices/{n % 5}", f"{n}") for n in range(count)]))


async def _trim(log: Log, unfinished: int = 1_000_000) -> int:
    promise = AppLog("devices", retention=0.0, keep=0, unfinished=unfinished)
    return await log._trimmer.trim(log._links.writes[P], promise, P)


async def _kept_after(log: Log, cursor: int) -> int:
    """By the log itself, entry by entry."""
    entries = cast("list[tuple[bytes, object]]", await log._links.own.ask("XRANGE", log_key(P), "-", "+"))
    return sum(position(id).offset > cursor for id, _ in entries)


def _finished(cursor: int, parked: int = 0) -> Changes:
    waiting = [Item(0, parked, "devices/0")] if parked else []
    return Changes(cursor, parked or cursor + 1, waiting, [], [], [])


async def test_the_lag_after_trimming_is_what_is_kept_after_the_cursor(log_server: str) -> None:
    async with running(log_server) as log:
        lease = await _begun(log)
        top = EVENTS + 1  # the first entry says that an epoch began

        async def seen() -> tuple[int, int, int]:
            state = await log.groups.ask(P, GROUP)
            assert state.lag == await _kept_after(log, state.cursor)
            return state.cursor, state.lag, state.parked

        await lease.settle(_finished(12), top)
        assert await _trim(log) == 12
        assert await seen() == (12, top - 12, 0)
        # What is parked stays, and is no lag; nor is what is finished behind it.
        await lease.settle(_finished(20, parked=15), top)
        assert await _trim(log) == 2
        assert await seen() == (20, top - 20, 1)
        # The bound takes what is not finished, before the cursor and after it.
        assert await _trim(log, unfinished=4) == top - 4 - 14
        assert await seen() == (top - 4, 4, 0)
        await _append(log, 3)
        assert await seen() == (top - 4, 7, 0)
        # A holder that has not heard of it settles what it knew.
        await lease.settle(_finished(21), top)
        assert (await log.groups.ask(P, GROUP)).lag == 7
        await lease.settle(_finished(top + 3), top + 3)
        await _trim(log)
        assert await seen() == (top + 3, 0, 0)


async def test_a_lag_that_counts_what_is_gone_is_found(log_server: str) -> None:
    async with running(log_server) as log:
        await _begun(log)
        await log._links.own.ask("XTRIM", log_key(P), "MAXLEN", 5)
        state = await log.groups.ask(P, GROUP)
        assert state.lag == await _kept_after(log, state.cursor) == 5
        assert _subtracted(state) != state.lag


def _subtracted(state: GroupState) -> int:
    return state.top - state.cursor


async def test_the_metric_falls_with_what_is_trimmed(log_server: str) -> None:
    go_on = asyncio.Event()
    slow = Service("slow", concurrency=2)

    @slow.on("devices/{id}")
    async def take(event: Event, context: Context) -> None:
        await go_on.wait()

    app = App("devices", topics=[Topic(pattern="devices/{id}")], services=[slow])
    declared = declare(Settings(gateway=GatewayTable(partitions=1)), [app])
    async with running(log_server) as log:
        await _append(log, EVENTS)
        worker = Worker(
            await Log.open(log_server, [AppLog("devices")], partitions=1), declared, GROUP, slow, lease=5.0, beat=0.05
        )

        def lag() -> float:
            lines = worker.render()[0].decode().splitlines()
            return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("gateway_lag"))

        stop = asyncio.Event()
        running_ = asyncio.create_task(worker.run(stop), name="worker")
        try:
            # It passed the entry that says that an epoch began.
            await eventually(lambda: lag() == EVENTS, within=30)
            await _trim(log, unfinished=8)
            await eventually(lambda: lag() == 8, within=30)
            go_on.set()
            await eventually(lambda: lag() == 0, within=30)
        finally:
            stop.set()
            await running_
            await worker.log.close()
