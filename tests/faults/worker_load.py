"""Load on the partitions of one service while its workers suffer, and the story of it for the checker."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import msgspec
import pytest

from gateway.adapters.log import AppLog, GroupState, Log
from gateway.adapters.log.entry import checked
from gateway.adapters.log.keys import group_part, log_key, part
from gateway.core.event import Appended, Draft, Event, Meta, Partition, Position
from gateway.errors import NotAvailable
from tests.faults.worker_checker import Effect, Settled, Story
from tests.faults.worker_process import DECLARED, EMITS_EVERY, GROUP, PARTITIONS, WorkerProcess
from tests.servers import eventually

#: What events do to their handlers, as often as it stands here.
MIXED = ("", "", "", "", "slow", "flaky")
#: What is buried for what it does.
POISON = {"never": "gave_up", "wrong": "rejected"}


class Fleet:
    """Workers that are started again when they die, as an orchestrator does; and the load on them."""

    def __init__(self, log: Log, url: str, folder: Path, kind: str, seed: int) -> None:
        self.dice, self.seed = random.Random(seed), seed
        self.faults = False
        self.poison: dict[str, str] = {}
        self.workers: list[WorkerProcess] = []
        self.log = log
        self._url, self._kind, self._folder = url, kind, folder
        self._sink = folder / "sink"
        self._sink.touch()
        self._sent: dict[str, tuple[str, int]] = {}
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self._keepers: list[asyncio.Task[None]] = []
        self._pour: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        #: A key's numbers come into the log in their order, whoever sends.
        self._sending = asyncio.Lock()

    async def add(self, count: int = 1, *environments: Mapping[str, str]) -> None:
        """Start ``count`` workers, or one in each of ``environments``."""
        around = environments or ({},) * count
        new = [
            WorkerProcess(self._url, self._sink, self._kind, f"w{len(self.workers) + n}", environment)
            for n, environment in enumerate(around)
        ]
        for one in new:
            await one.start()
        await asyncio.gather(*(one.up() for one in new))
        self.workers += new
        self._keepers += [asyncio.create_task(self._keep(one), name="keeper") for one in new]

    async def _keep(self, worker: WorkerProcess) -> None:
        while True:
            if await worker.gone() == 0:
                return
            await worker.start()

    def pour(self, per_turn: int = 20, does: Sequence[str] = MIXED) -> None:
        """Send events until `rest`, drawn from ``does``."""

        async def pouring() -> None:
            while not self._stopped.is_set():
                await self.send([self.dice.choice(does) for _ in range(per_turn)])
                await asyncio.sleep(0.01)

        self._pour = asyncio.create_task(pouring(), name="pouring")

    async def send(self, does: Sequence[str], data: bytes = b"", reason: str = "", size: int = 0) -> None:
        """Append an event for each of ``does``; ``size``: of its payload in bytes. ``reason``: it is poison."""
        async with self._sending:
            by_partition: defaultdict[str, list[Draft]] = defaultdict(list)
            for what in does:
                partition, draft = self._draft(what, data, size)
                by_partition[partition].append(draft)
                if why := reason or POISON.get(what, ""):
                    self.poison[draft.event.id] = why
            for partition, drafts in by_partition.items():
                for draft, answer in zip(drafts, await self.log.append(partition, drafts, patient=True), strict=True):
                    if not isinstance(answer, Appended):
                        raise answer
                    self._note(draft.event.id)

    async def smuggle(self, size: int, reason: str) -> None:
        """Append one event as a program does that writes the log by itself and knows no bound."""
        async with self._sending:
            partition, draft = self._draft("", b"", size)
            event = draft.event
            topic, id = event.topic.encode(), event.id.encode()
            meta = checked(event.meta, topic, id, event.data)
            self.poison[event.id] = reason
            fields = ("topic", topic, "id", id, "data", event.data, "prev", 0, "meta", meta, "key", draft.key)
            await self.scribble(partition, *fields)
            self._note(event.id)

    async def scribble(self, partition: Partition, *fields: bytes | str | int) -> None:
        """Put an entry of whatever fields into the log."""
        epoch = cast("bytes", await self.log._links.own.ask("HGET", part(partition, "epochs"), "current")).decode()
        await self.log._links.own.ask("XADD", log_key(partition), f"{epoch}-*", *fields)

    def _draft(self, does: str, data: bytes, size: int) -> tuple[Partition, Draft]:
        key = f"o{self.dice.randrange(40)}"
        n = self._numbers[key] = self._numbers[key] + 1
        topic = f"shop/orders/{key}/placed"
        found = DECLARED.find(topic)
        body = data or msgspec.json.encode({"n": n, "does": does})
        if size:
            body = body.ljust(size)  # white space after a value is JSON (RFC 8259, 2)
        return found.partition, Draft(Event(topic, body, f"{key}-{n}", Meta()), found.key)

    def _note(self, id: str) -> None:
        key, _, n = id.partition("-")
        self._sent[id] = (key, int(n))

    def effects(self) -> list[Effect]:
        lines = [line.split() for line in self._sink.read_text().splitlines()]
        return [Effect(id, key, int(n), int(attempt)) for id, key, n, attempt in lines]

    async def more(self, count: int) -> None:
        """Wait until so many effects more have happened."""
        with self._sink.open("rb") as sink:
            sink.seek(0, os.SEEK_END)
            seen = 0

            def enough() -> bool:
                nonlocal seen
                seen += sink.read().count(b"\n")
                return seen >= count

            await eventually(enough, within=60)

    async def rest(self, within: float = 60.0) -> Story:
        """Send no more, wait until nothing is pending, or so many seconds, and tell the story."""
        if self._pour is not None:
            self._stopped.set()
            await self._pour  # to its end: what is cut short may be in the log, and nobody knows
        with suppress(pytest.fail.Exception):
            await eventually(self._at_rest, within)
        return await self.told()

    async def told(self) -> Story:
        """Tell the story so far: what was done once too often stays so, what is missing may come."""
        buried: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        emitted: defaultdict[str, set[str]] = defaultdict(set)
        settles: list[Settled] = []
        for partition in self.log.partitions():
            for _, letter in await self.log.dead(partition, count=10_000):
                buried[letter.id].append((letter.reason, letter.at))
            settles += await self._settles(partition)
            for cause, id in await self._emitted(partition):
                emitted[cause].add(id)
        effects = self.effects()
        owing = frozenset(effect.id for effect in effects if effect.n % EMITS_EVERY == 0)
        lag, parked = await self._behind()
        return Story(
            self._sent,
            effects,
            dict(buried),
            self.poison,
            lag,
            parked,
            self.faults,
            settles,
            owing,
            {cause: frozenset(ids) for cause, ids in emitted.items()},
        )

    def kept(self, story: Story) -> str:
        """Write the story down; returns where, and the seed: what a failed run leaves behind."""
        path = self._folder / "story.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(story)))
        return f"FAULT_SEED={self.seed}; its story: {path}"

    async def _settles(self, partition: Partition) -> list[Settled]:
        key = group_part(partition, GROUP, "trace")
        found = []
        for line in cast("list[bytes]", await self.log._links.own.ask("LRANGE", key, 0, -1)):
            token, holder, serial, before, after, what = line.decode().split(" ")
            found.append(Settled(partition, token, holder, int(serial), int(before), int(after or before), what))
        return found

    async def _emitted(self, partition: Partition) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        after = Position(0, 0)
        while True:
            page = await self.log.read(partition, after, 1_000)
            if page.position == after:
                return found
            events = [record.event for record in page.records]
            found += [(event.meta.cause, event.id) for event in events if event.meta.cause]
            after = page.position

    async def parked(self) -> int:
        return (await self._behind())[1]

    async def lost_all(self, worker: WorkerProcess) -> bool:
        """Whether others hold everything that ``worker`` held."""
        return all(state.holder not in {"", worker.name} for state in await self._states())

    async def _at_rest(self) -> bool:
        return await self._behind() == (0, 0)

    async def _behind(self) -> tuple[int, int]:
        states = await self._states()
        if len(states) < PARTITIONS:
            return (1, 0)
        return sum(state.lag for state in states), sum(state.parked for state in states)

    async def _states(self) -> list[GroupState]:
        states = []
        for partition in self.log.partitions():
            with suppress(NotAvailable):
                states.append(await self.log.groups.ask(partition, GROUP))
        return states

    async def end(self) -> None:
        tasks = [*self._keepers, *([self._pour] if self._pour else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for worker in self.workers:
            await worker.kill()


@asynccontextmanager
async def fleet(url: str, folder: Path, kind: str = "Holding", *, workers_url: str = "") -> AsyncIterator[Fleet]:
    """A log and no worker yet. The seed of its dice is printed, and taken from ``FAULT_SEED`` where that is set."""
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1, 2**32)
    sys.stdout.write(f"FAULT_SEED={seed}\n")
    log = await Log.open(url, [AppLog("shop")], partitions=PARTITIONS)
    running = asyncio.create_task(log.run(), name="log")
    made = Fleet(log, workers_url or url, folder, kind, seed)
    try:
        yield made
    finally:
        await made.end()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await log.close()
