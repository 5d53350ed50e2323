"""A crowd that comes back at once: each has what it missed, once and in order, and the log is read once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis_client

from gateway import limits
from gateway.adapters.log.history import Page
from gateway.core.event import Appended, Draft, Event, Partition, Position
from gateway.core.resume import Epochs
from gateway.edge.feed import Feed
from gateway.edge.recovery import missed
from gateway.errors import Unavailable
from tests.gateways import Client, Running, client, running_edge, token
from tests.journeys.event_source import Source
from tests.servers import eventually

CROWD, DEVICES, MISSED = 200, 40, 25
#: Nobody comes back to these: what they say only drives the rest out of memory.
FILLING = 400

#: What the nth client of the crowd watches.
WATCHING: dict[str, Callable[[int], str]] = {
    "one topic": lambda n: "devices/0/telemetry",
    "a wildcard within a partition": lambda n: "devices/0/+",
    "many topics": lambda n: f"devices/{n % DEVICES}/telemetry",
}
READS = ("xrange", "xrevrange")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_ENTRIES", FILLING)
    monkeypatch.setattr(limits, "LOG_PAGE", 32)


class World:
    """An edge, and its log server's own count of commands."""

    def __init__(self, edge: Running, server: redis_client.Redis) -> None:
        self.edge, self.server = edge, server

    @property
    def feeds(self) -> Sequence[Feed]:
        return list(self.edge.edge.readers._feeds.values())

    async def append(self, topics: Sequence[str], values: Sequence[int]) -> None:
        """Publish each of ``values`` to each of ``topics``, and wait until the edge has seen them."""
        drafts: dict[Partition, list[Draft]] = {}
        for value in values:
            for topic in topics:
                found = self.edge.edge.declared.find(topic)
                event = Event(topic, b"%d" % value, f"{topic}-{value}")
                drafts.setdefault(found.partition, []).append(Draft(event, found.key))
        for partition, some in drafts.items():
            assert all(isinstance(one, Appended) for one in await self.edge.log.append(partition, some))
        await self.reached()

    async def reached(self) -> None:
        for feed in self.feeds:
            await feed.reached((await self.edge.log.top(feed.partition)).offset)

    async def fill(self, count: int = FILLING) -> None:
        """Publish so much in each partition that nothing from before is in memory."""
        for feed in self.feeds:
            drafts = [Draft(Event("try/filling", b"0", f"{feed.partition}-{n}"), "try/filling") for n in range(count)]
            await self.edge.log.append(feed.partition, drafts)
        await self.reached()

    async def reads(self) -> int:
        """How often the log was read since the count began; a chain's entries count one by one."""
        stats = await self.server.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in READS)


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    async with running_edge(url) as edge, redis_client.Redis.from_url(url) as server:
        async with client(edge.ws, token()) as one:
            # Its readers stay when it goes.
            assert "subscribe" in await one.ask("subscribe", channel="devices/#")
        await World(edge, server).reached()
        yield World(edge, server)


def devices() -> list[str]:
    return [f"devices/{n}/telemetry" for n in range(DEVICES)]


async def standing(on: World) -> dict[str, dict[str, Any]]:
    """Where a client stands that has seen all there is, by channel."""
    async with client(on.edge.ws, token()) as one:
        found = {}
        for channel in (*devices(), "devices/0/+"):
            reply = (await one.ask("subscribe", channel=channel))["subscribe"]
            found[channel] = {"epoch": reply["epoch"], "offset": reply.get("offset", 0)}
        return found


@asynccontextmanager
async def back(on: World, channels: Sequence[str], at: dict[str, dict[str, Any]]) -> AsyncIterator[list[Client]]:
    """A client for each of ``channels``, all there and subscribed again; ``pushes`` begin with the reply's."""
    async with together(on, len(channels)) as crowd:
        asked = [
            one.ask("subscribe", channel=channel, recover=True, **at[channel])
            for one, channel in zip(crowd, channels, strict=True)
        ]
        for one, reply in zip(crowd, await asyncio.gather(*asked), strict=True):
            assert reply["subscribe"].get("recovered", False), reply
            one.pushes[:0] = [{"pub": pub} for pub in reply["subscribe"].get("publications", [])]
        yield crowd


@asynccontextmanager
async def together(on: World, count: int) -> AsyncIterator[list[Client]]:
    entered = [client(on.edge.ws, token(f"user-{n}")) for n in range(count)]
    crowd = await asyncio.gather(*(one.__aenter__() for one in entered))
    try:
        yield crowd
    finally:
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in entered))


def heard(one: Client) -> list[int]:
    return [push["pub"]["data"] for push in one.pushes]


@pytest.mark.parametrize(
    ("known", "watching"),
    [("in memory", "many topics"), *(("only in the log", w) for w in WATCHING), ("of before this edge", "many topics")],
)
async def test_a_crowd_reads_the_log_once(log_url: str, known: str, watching: str) -> None:
    channels = [WATCHING[watching](n) for n in range(CROWD)]
    async with world(log_url) as on:
        at = await standing(on)
        few = 5 if known == "in memory" else MISSED
        await on.append(devices(), range(few))
        if known != "in memory":
            await on.fill()
        if known == "of before this edge":
            for feed in on.feeds:
                feed.window.seen = feed.window.floor
        await on.server.config_resetstat()
        storm = asyncio.create_task(on.append(devices(), range(few, few + 5)), name="meanwhile")
        async with back(on, channels, at) as crowd:
            await storm
            reads = await on.reads()
            await on.append(devices(), [few + 5])
            for one in crowd:
                await one.until(few + 6)
                assert heard(one) == list(range(few + 6)), "all of it, once and in order, joined to what comes"
        places = {on.edge.edge.declared.find(channel.replace("+", "status")).partition for channel in channels}
        if known == "in memory":
            assert reads == 0
        elif known == "only in the log":
            assert 0 < reads <= 2 * len(places)
        else:
            # Pages are small where nobody knows what they hold, and that many clients of one key go by its chain.
            pages = max(-(-feed.window.floor // limits.LOG_PAGE) for feed in on.feeds)
            assert 0 < reads <= len(places) * pages * (1 + MISSED + 5)


async def test_a_crowd_with_cursors_over_all_partitions(log_url: str) -> None:
    async with world(log_url) as on:
        first = Source(on.edge.port, "devices/#")
        reading = asyncio.create_task(first.run(), name="first")
        await eventually(lambda: first.connects)
        await on.append(devices(), [-1])
        await eventually(lambda: len(first.events) == DEVICES)
        reading.cancel()
        await on.append(devices(), range(MISSED))
        await on.fill()
        await on.server.config_resetstat()
        crowd = [Source(on.edge.port, "devices/#", first.last_id) for _ in range(20)]
        running = [asyncio.create_task(one.run(), name="source") for one in crowd]
        await eventually(lambda: all(len(one.events) >= DEVICES * MISSED for one in crowd), within=60)
        assert await on.reads() <= 2 * len(on.feeds)
        for one in crowd:
            assert {name for name, _ in one.events} == {"message"}
            told: dict[str, list[int]] = {}
            for _, event in one.events:
                told.setdefault(event["tags"]["topic"], []).append(event["data"])
            assert told == {topic: list(range(MISSED)) for topic in devices()}
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_what_was_trimmed_is_not_made_up_for_a_crowd(log_url: str) -> None:
    async with world(log_url) as on:
        at = await standing(on)
        await on.append(devices(), range(MISSED))
        await on.fill()
        place = on.edge.edge.declared.find("devices/0/telemetry").partition
        top = await on.edge.log.top(place)
        await on.server.xtrim(f"{{{place}}}", minid=f"{top.epoch}-{top.offset - 410}", approximate=False)
        async with together(on, 50) as crowd:
            asked = [one.ask("subscribe", channel="devices/0/+", recover=True, **at["devices/0/+"]) for one in crowd]
            for reply in await asyncio.gather(*asked):
                assert "recovered" not in reply["subscribe"]


async def test_what_was_read_goes_with_its_history_and_when_nobody_needs_it(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(log_url) as on:
        at = await standing(on)
        await on.append(devices(), range(MISSED))
        await on.fill()
        feed = next(f for f in on.feeds if f.partition == on.edge.edge.declared.find("devices/0/telemetry").partition)
        for forget in (feed.backlog.forget, feed.backlog.tidy):
            await on.server.config_resetstat()
            async with back(on, ["devices/0/telemetry"], at) as (one,):
                assert heard(one) == list(range(MISSED))
            assert await on.reads() >= 1
            feed.backlog.tidy()
            await on.server.config_resetstat()
            async with back(on, ["devices/0/telemetry"], at) as (one,):
                assert heard(one) == list(range(MISSED))
            assert await on.reads() == 0, "it is kept for who comes next"
            monkeypatch.setattr(limits, "BACKLOG_KEPT", 0.0)
            forget()
            monkeypatch.setattr(limits, "BACKLOG_KEPT", 60.0)


async def test_what_is_kept_of_the_log_is_bounded(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BACKLOG_PAGE", 64)
    async with world(log_url) as on:
        at = await standing(on)
        await on.append(["devices/0/telemetry"], range(1_500))
        await on.fill()
        feed = next(f for f in on.feeds if f.partition == on.edge.edge.declared.find("devices/0/telemetry").partition)
        async with back(on, ["devices/0/+"], at) as (one,):
            await one.until(1_500)
            assert heard(one) == list(range(1_500))
        kept = list(feed.backlog._runs.values())
        assert 0 < sum(len(run.window) for run in kept) <= FILLING + 64
        assert feed.backlog._blocks == {n: run for run in kept for n in run.blocks}


async def test_what_was_read_of_an_epoch_that_ended_meanwhile_is_asked_for_again(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(log_url) as on:
        at, log = (await standing(on))["devices/0/+"], on.edge.log
        await on.append(devices(), range(5))
        await on.fill()
        feed = next(f for f in on.feeds if f.partition == on.edge.edge.declared.find("devices/0/telemetry").partition)
        since, read = Position(int(at["epoch"]), at["offset"]), log.read

        async def reading(partition: Partition, after: Position, count: int) -> Page:
            page = await read(partition, after, count)
            feed.epochs = Epochs({**feed.epochs.first, feed.epochs.current + 1: feed.position.offset + 1})
            return page

        monkeypatch.setattr(log, "read", reading)
        with pytest.raises(Unavailable, match="subscribe again"):
            await missed(log, feed, "devices/0/+", "", since)
        found = await missed(log, feed, "devices/0/+", "", since)
        assert found is not None
        assert [record.event.data for record in found] == [b"%d" % n for n in range(5)]
