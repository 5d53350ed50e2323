"""Trimming against groups that lag, park, die and come back as zombies: what one has not finished stays readable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec
import pytest
import redis.asyncio as client

from gateway.adapters.embedded import Server
from gateway.adapters.log import AppLog, DeadLetter, Lease, Log
from gateway.adapters.log.keys import log_key
from gateway.core.delivery import ACK, Bury, Park
from gateway.core.event import Position, Record
from gateway.core.lanes import Item, Lanes
from gateway.errors import Fenced, Unavailable
from tests.contracts.log_running import P, draft, offsets, running
from tests.servers import eventually

KEYS = 5
GROUPS = ("devices.fast", "devices.slow")


# --- the checker ----------------------------------------------------------------------------------------------------


class Story(msgspec.Struct, frozen=True):
    """One group in one partition, after everything settled. Ids are ``key:number``, rising within a key."""

    appended: Sequence[str]
    #: Ids as they were handled; again where the worker died, or was fenced, before it could settle.
    done: Sequence[str]
    #: Id and reason of the group's dead letters.
    letters: Sequence[tuple[str, str]]
    #: Entries that a reader of the group found missing from the log.
    holes: int = 0
    #: Whether the bound on what waits was ever reached.
    bounded: bool = False


def complaints(story: Story) -> set[str]:
    """The names of all promises that ``story`` breaks; empty when it keeps them."""
    found = set()
    overtaken = [id for id, reason in story.letters if reason == "retention"]
    ended = {*story.done, *(id for id, _ in story.letters)}
    if set(story.appended) - ended:
        found.add("lost")
    if ended - set(story.appended):
        found.add("phantom")
    if overtaken and not story.bounded:
        found.add("overtaken")
    if story.holes and not story.bounded:
        found.add("hole")
    if len(set(story.letters)) != len(story.letters):
        found.add("letters twice")
    if not _in_order(dict.fromkeys(story.done)):
        found.add("order")
    return found


def _in_order(ids: Iterable[str]) -> bool:
    last: dict[str, int] = {}
    for key, number in (id.split(":") for id in ids):
        if int(number) < last.get(key, -1):
            return False
        last[key] = int(number)
    return True


GOOD = Story(["a:0", "b:0", "a:1", "a:2"], ["a:0", "b:0", "a:0", "a:1"], [("a:2", "gave_up")])


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        ({"done": ["a:0", "b:0"]}, "lost"),
        ({"letters": []}, "lost"),
        ({"done": [*GOOD.done, "c:0"]}, "phantom"),
        ({"letters": [("a:2", "retention")]}, "overtaken"),
        ({"holes": 1}, "hole"),
        ({"letters": [("a:2", "gave_up"), ("a:2", "gave_up")]}, "letters twice"),
        ({"done": ["a:1", "b:0", "a:0"]}, "order"),
    ],
)
def test_the_checker_finds_what_is_planted(plant: Mapping[str, object], complaint: str) -> None:
    assert complaints(GOOD) == set()
    assert complaints(msgspec.structs.replace(GOOD, **plant)) == {complaint}


# --- the load -------------------------------------------------------------------------------------------------------


class Work:
    """The workers of one group, that die and freeze at random; everything they do is drawn from ``seed``."""

    def __init__(self, log: Log, group: str, seed: int, pause: float) -> None:
        self.log = log
        self.group = group
        self.dice = random.Random(f"{seed} {group}")
        self.pause = pause
        self.done: list[str] = []
        self.holes = 0
        self.deaths = 0
        self.calm = False

    async def worker(self, name: str) -> None:
        """One after another until cancelled: each life takes the lease, works, and ends in one of three ways."""
        while True:
            try:
                lease = await self.log.groups.take(P, self.group, name, "earliest", 0.1)
                if lease is not None:
                    await self.life(lease)
            except (Fenced, Unavailable):
                pass  # another took it, or the server is being killed
            await asyncio.sleep(0.005)

    async def life(self, lease: Lease) -> None:
        lanes = Lanes(lease.cursor, lease.parked)
        records = await lease.fetch(lease.parked)
        at = (await self.log.epochs(P)).at(lease.cursor)
        while True:
            at = await self.read(lanes, records, at)
            await lease.settle(None, lanes.read)
            now = asyncio.get_running_loop().time()
            letters = []
            for item in lanes.take(20, now):
                record = records.pop(item.offset, None)
                if record is None:  # trimming gave it up before
                    lanes.settle(item, ACK, now)
                    continue
                draw = self.dice.random()
                if draw < 0.1 and item.attempts < 5:
                    lanes.settle(item, Park(0.02, item.attempts + 1), now)
                    records[item.offset] = record
                elif draw < 0.15:
                    lanes.settle(item, Bury("rejected", "by dice"), now)
                    letters.append(_letter(self.group, record))
                else:
                    lanes.settle(item, ACK, now)
                    self.done.append(record.event.id)
            if not self.calm and self.dice.random() < 0.1:
                self.deaths += 1
                return
            if not self.calm and self.dice.random() < 0.05:
                await asyncio.sleep(0.15)  # a zombie: its lease is over when it wakes
            changes = lanes.changes()
            if changes is not None:
                await lease.settle(changes, lanes.read, letters)
            if not self.calm and self.dice.random() < 0.1:
                await lease.release()
                return
            await asyncio.sleep(self.pause)
            await lease.renew()

    async def read(self, lanes: Lanes, records: dict[int, Record], at: Position) -> Position:
        page = await self.log.read(P, at, 20)
        self.holes += page.lost
        for record in page.records:
            if lanes.add(Item(record.epoch, record.offset, record.event.topic)):
                records[record.offset] = record
        lanes.skip(page.position.offset)
        return page.position


def _letter(group: str, record: Record) -> DeadLetter:
    event = record.event
    at = f"{record.epoch}-{record.offset}"
    return DeadLetter("rejected", "by dice", event.topic, event.data, event.meta, group=group, id=event.id, at=at)


class Run:
    """Two groups, one of them slow, an appender and a trimmer that keeps nothing it may let go."""

    def __init__(self, log: Log, seed: int, unfinished: int = 1_000_000, events: int = 400) -> None:
        self.log = log
        self.events = events
        self.promise = AppLog("devices", retention=0.0, keep=0, unfinished=unfinished)
        self.works = [Work(log, GROUPS[0], seed, 0.0), Work(log, GROUPS[1], seed, 0.01)]
        self.appended: list[str] = []

    @property
    def eventful(self) -> bool:
        """Did what the dice are for happen?"""
        return all(work.deaths for work in self.works) and self.log.counters.fenced > 0

    async def trim(self) -> None:
        while True:
            try:
                await self.log._trimmer.trim(self.log._links.writes[P], self.promise, P)
            except Unavailable:
                pass  # the server is being killed
            await asyncio.sleep(0.005)

    async def go(self, disturb: Callable[[], Awaitable[None]] | None = None) -> None:
        """Until everything that was appended is finished in both groups."""
        for work in self.works:  # groups exist before the first event may be trimmed
            lease = await self.log.groups.take(P, work.group, "first", "earliest", 1.0)
            if lease is not None:
                await lease.release()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.trim(), name="trim")]
            for work in self.works:
                tasks += [group.create_task(work.worker(f"w{n}"), name=f"{work.group} {n}") for n in range(3)]
            number = 0
            while number < self.events or (number < 20 * self.events and not self.eventful):
                id = f"{number % KEYS}:{number // KEYS}"
                offsets(await self.log.append(P, [draft(f"devices/{number % KEYS}", id)], patient=True))
                self.appended.append(id)
                if disturb is not None and number == self.events // 2:
                    await disturb()
                number += 1
            for work in self.works:
                work.calm = True
            await eventually(self.finished, within=40.0)
            for task in tasks:
                task.cancel()

    async def finished(self) -> bool:
        try:
            states = [await self.log.groups.ask(P, work.group) for work in self.works]
        except Unavailable:
            return False
        return all(state.lag == 0 and state.parked == 0 for state in states)

    async def stories(self, *, bounded: bool = False) -> list[Story]:
        letters = [one for _, one in await self.log.dead(P, count=100_000)]
        return [
            Story(
                self.appended,
                work.done,
                [(one.id, one.reason) for one in letters if one.group == work.group],
                work.holes,
                bounded,
            )
            for work in self.works
        ]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nothing_unfinished_is_trimmed(log_server: str, seed: int) -> None:
    async with running(log_server) as log:
        run = Run(log, seed)
        await run.go()
        assert [complaints(story) for story in await run.stories()] == [set(), set()], seed
        assert log.counters.overtaken == 0
        await eventually(lambda: _all_trimmed(log, run))
        assert run.eventful


async def _all_trimmed(log: Log, run: Run) -> bool:
    """What every group finished is not kept, once the retention is over."""
    await log._trimmer.trim(log._links.writes[P], run.promise, P)
    return await log.floor(P) == len(run.appended) + 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_over_lives_of_the_server(fresh_log_server: Callable[..., Server], seed: int) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        run = Run(log, seed)

        async def kill() -> None:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

        await run.go(kill)
        assert [complaints(story) for story in await run.stories()] == [set(), set()], seed
        assert log.counters.epoch_changes == 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_beyond_the_bound_what_is_unfinished_is_buried_and_never_lost(log_server: str, seed: int) -> None:
    async with running(log_server) as log:
        run = Run(log, seed, unfinished=30)
        await run.go()
        told = await run.stories(bounded=True)
        assert [complaints(story) for story in told] == [set(), set()], seed
        retention = [id for story in told for id, reason in story.letters if reason == "retention"]
        assert len(retention) == log.counters.overtaken > 0
        async with client.Redis.from_url(log_server) as raw:
            assert await raw.xlen("{devices.0}") <= 31


class ByLength(Run):
    """What most users of streams do: it asks nobody."""

    async def trim(self) -> None:
        while True:
            await self.log._links.own.ask("XTRIM", log_key(P), "MAXLEN", 10)
            await asyncio.sleep(0.005)


async def test_a_trim_that_asks_no_group_is_found(log_server: str) -> None:
    async with running(log_server) as log:
        run = ByLength(log, 1)
        await run.go()
        assert any({"lost", "hole"} <= complaints(story) for story in await run.stories())


async def test_an_event_that_was_overtaken_can_be_replayed(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft("devices/0", f"0:{n}", b"%d" % n, key="k") for n in range(10)])
        lease = await log.groups.take(P, GROUPS[0], "w", "earliest", 60.0)
        assert lease is not None
        promise = AppLog("devices", retention=0.0, keep=0, unfinished=4)
        assert await log._trimmer.trim(log._links.writes[P], promise, P) == 7
        letters = await log.dead(P)
        assert [(one.id, one.reason, one.key) for _, one in letters] == [(f"0:{n}", "retention", "k") for n in range(6)]
        await log.groups.replay(P, GROUPS[0], [id for id, _ in letters])
        await lease.renew()
        fresh = await lease.fresh()
        assert [(one.event.id, one.event.data) for one in (await lease.fetch(fresh)).values()] == [
            (f"0:{n}", b"%d" % n) for n in range(6)
        ]
        state = await log.groups.ask(P, GROUPS[0])
        assert (state.cursor, state.oldest, state.lag, state.parked) == (7, 8, 4, 6)
