"""Load on the partitions of one service while its workers suffer, and the story of it for the checker."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.log import AppLog, Log
from gateway.core.event import Appended, Draft, Event, Meta
from gateway.errors import NotAvailable
from tests.faults.worker_checker import Effect, Story
from tests.faults.worker_process import DECLARED, GROUP, PARTITIONS, WorkerProcess
from tests.servers import eventually


class Fleet:
    """Workers that are started again when they die, as an orchestrator does; and the load on them."""

    def __init__(self, log: Log, url: str, folder: Path, kind: str, seed: int) -> None:
        self.dice = random.Random(seed)
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

    async def add(self, count: int = 1) -> None:
        new = [WorkerProcess(self._url, self._sink, self._kind, f"w{len(self.workers) + n}") for n in range(count)]
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

    def pour(self, per_turn: int = 20) -> None:
        """Send events until `rest`, some of them flaky or slow."""

        async def pouring() -> None:
            while not self._stopped.is_set():
                await self.send([self.dice.choice(["", "", "", "", "slow", "flaky"]) for _ in range(per_turn)])
                await asyncio.sleep(0.01)

        self._pour = asyncio.create_task(pouring(), name="pouring")

    async def send(self, does: list[str], data: bytes = b"", reason: str = "") -> None:
        by_partition: defaultdict[str, list[Draft]] = defaultdict(list)
        for what in does:
            key = f"o{self.dice.randrange(40)}"
            n = self._numbers[key] = self._numbers[key] + 1
            topic, id = f"shop/orders/{key}/placed", f"{key}-{n}"
            found = DECLARED.find(topic)
            body = data or msgspec.json.encode({"n": n, "does": what})
            by_partition[found.partition].append(Draft(Event(topic, body, id, Meta()), found.key))
            if reason:
                self.poison[id] = reason
        for partition, drafts in by_partition.items():
            for draft, answer in zip(drafts, await self.log.append(partition, drafts, patient=True), strict=True):
                if not isinstance(answer, Appended):
                    raise answer
                key, _, n_ = draft.event.id.partition("-")
                self._sent[draft.event.id] = (key, int(n_))

    def effects(self) -> list[Effect]:
        lines = [line.split() for line in self._sink.read_text().splitlines()]
        return [Effect(id, key, int(n), int(attempt)) for id, key, n, attempt in lines]

    async def more(self, count: int) -> None:
        """Wait until so many effects more have happened."""
        have = self._sink.read_bytes().count(b"\n")
        await eventually(lambda: self._sink.read_bytes().count(b"\n") >= have + count, within=30)

    async def rest(self, within: float = 30.0) -> Story:
        """Send no more, wait until nothing is pending, or so many seconds, and tell the story."""
        if self._pour is not None:
            self._stopped.set()
            await self._pour  # to its end: what is cut short may be in the log, and nobody knows
        with suppress(pytest.fail.Exception):
            await eventually(self._at_rest, within)
        buried: defaultdict[str, set[str]] = defaultdict(set)
        for partition in self.log.partitions():
            for _, letter in await self.log.dead(partition, count=10_000):
                buried[letter.id].add(letter.reason)
        lag, parked = await self._behind()
        return Story(self._sent, self.effects(), dict(buried), self.poison, lag, parked, self.faults)

    async def _at_rest(self) -> bool:
        return await self._behind() == (0, 0)

    async def _behind(self) -> tuple[int, int]:
        states = []
        for partition in self.log.partitions():
            with suppress(NotAvailable):
                states.append(await self.log.groups.ask(partition, GROUP))
        if len(states) < PARTITIONS:
            return (1, 0)
        return sum(state.lag for state in states), sum(state.parked for state in states)

    async def end(self) -> None:
        tasks = [*self._keepers, *([self._pour] if self._pour else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for worker in self.workers:
            await worker.kill()


@asynccontextmanager
async def fleet(url: str, folder: Path, seed: int, kind: str = "Holding") -> AsyncIterator[Fleet]:
    """A log and no worker yet; ``seed`` is printed, so that a failed run can be had again."""
    sys.stdout.write(f"seed {seed}\n")
    log = await Log.open(url, [AppLog("shop")], partitions=PARTITIONS)
    running = asyncio.create_task(log.run(), name="log")
    made = Fleet(log, url, folder, kind, seed)
    try:
        yield made
    finally:
        await made.end()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await log.close()
