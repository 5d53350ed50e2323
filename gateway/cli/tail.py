"""``gateway tail``: an operator reads the log itself, past every right and every edge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated

import typer

from gateway import limits
from gateway.adapters.log import Log
from gateway.adapters.log import Tail as LogTail
from gateway.cli.configuration import Config, Configuration, Json, gather
from gateway.cli.shown import Closed, Shown, put, shown
from gateway.core.event import Event, Partition, Position, Record
from gateway.core.topic import matches
from gateway.tables import duration

#: Milliseconds since 1970 from which on, 0 for everything, None for what comes from now on.
Since = int | None


def run(
    filter: Annotated[str, typer.Argument(metavar="[FILTER]", help="A topic or filter; all of them by default.")] = "#",
    since: Annotated[str, typer.Option("--from", help="earliest, latest, or a duration such as 15m.")] = "latest",
    count: Annotated[int | None, typer.Option("-n", help="End after so many events.", min=1)] = None,
    follow: Annotated[bool, typer.Option(help="Wait for what comes; otherwise end where the log ends now.")] = True,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show what is in the log, and what comes into it. For operators: it reads past the edge and its rights."""
    found = gather(config)
    begin = _since(since)
    places = _places(found, filter)

    async def show() -> None:
        log = await open_to_read(found)
        left = count or 0
        try:
            async with aclosing(events(log, places, begin, follow)) as coming:
                async for event in coming:
                    if not matches(filter, event.topic):
                        continue
                    put(event.json() if json else event.line())
                    left -= 1
                    if not left:
                        return
        finally:
            await log.close()

    try:
        asyncio.run(show())
    except (KeyboardInterrupt, Closed):
        return


async def open_to_read(found: Configuration) -> Log:
    """Return the log of the settings or of a running ``gateway up``; raises :class:`Unavailable`."""
    at = found.settings.gateway
    return await Log.open(found.log_url, found.logs, gateway=at.name, partitions=at.partitions, keys=found.keys)


async def events(log: Log, places: Sequence[Partition], since: Since, follow: bool) -> AsyncGenerator[Shown]:
    """Yield what is kept, merged by time, then what comes, as it comes."""
    tails = {place: log.tail(place) for place in places}
    for tail in tails.values():
        await tail.start(0)
    if since is not None:
        async with aclosing(_history(log, {place: tail.position for place, tail in tails.items()}, since)) as kept:
            async for event in kept:
                yield event
    if not follow:
        return
    coming: asyncio.Queue[Shown] = asyncio.Queue(limits.READ_AHEAD)
    async with asyncio.TaskGroup() as group:
        readers = [
            group.create_task(_follow(tail, place, coming), name=f"tail {place}") for place, tail in tails.items()
        ]
        try:
            while True:
                yield await coming.get()
        except GeneratorExit:
            return  # of whom reads no further; the task group would make an error of it
        finally:
            for reader in readers:
                reader.cancel()


async def _history(log: Log, tops: dict[Partition, Position], since: int) -> AsyncGenerator[Shown]:
    """Yield the kept events up to ``tops``: the oldest of all partitions first, a page of each in memory."""
    pages = {place: _pages(log, place, top, since) for place, top in tops.items()}
    heads = {place: record async for place, record in _first(pages)}
    while heads:
        place = min(heads, key=lambda p: heads[p].event.meta.ts)
        yield _record(heads[place])
        record = await anext(pages[place], None)
        if record is None:
            del heads[place]
        else:
            heads[place] = record


async def _first(pages: dict[Partition, AsyncIterator[Record]]) -> AsyncIterator[tuple[Partition, Record]]:
    for place, records in pages.items():
        record = await anext(records, None)
        if record is not None:
            yield place, record


async def _pages(log: Log, place: Partition, top: Position, since: int) -> AsyncIterator[Record]:
    at = Position(0, 0)
    while at < top:
        page = await log.read(place, at, limits.LOG_PAGE)
        for record in page.records:
            if Position(record.epoch, record.offset) > top:
                return
            if record.event.meta.ts >= since:
                yield record
        if page.position == at:
            return
        at = page.position


async def _follow(tail: LogTail, place: Partition, coming: asyncio.Queue[Shown]) -> None:
    async for batch in tail:
        for record in batch.records:
            await coming.put(_record(record))
        for event in batch.live:
            await coming.put(_event(event, place))


def _record(record: Record) -> Shown:
    return _event(record.event, record.partition, record.epoch, record.offset)


def _event(event: Event, partition: Partition, epoch: int = 0, offset: int = 0) -> Shown:
    meta = event.meta
    return shown(event.topic, event.id, meta.ts, event.data, meta.type, offset=offset, epoch=epoch, partition=partition)


def _places(found: Configuration, filter: str) -> list[Partition]:
    met = found.declared.meeting(filter)
    return sorted(found.declared.places(met))


def _since(text: str, now: Callable[[], float] = time.time) -> Since:
    if text in ("earliest", "latest"):
        return 0 if text == "earliest" else None
    try:
        return int((now() - duration(text)) * 1000)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither earliest, latest nor a duration such as 15m") from None
