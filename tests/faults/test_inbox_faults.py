"""Services with a database under faults: each event has one effect, and each effect its one fact, whoever dies."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from gateway.adapters.child import Server
from gateway.adapters.log import AppLog, Log
from gateway.core.event import Appended, Draft, Event, Meta
from gateway.errors import NotAvailable, Unavailable
from gateway.sql import Database
from gateway.store import Store
from tests.databases import new_database, postgres
from tests.faults.inbox_checker import Done, Story, complaints
from tests.faults.inbox_process import DECLARED, DONE, LEASE, PARTITIONS, TABLES
from tests.servers import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def postgresql() -> Iterator[Server]:
    with postgres() as server:
        yield server


class Shop:
    """Workers of two services that are started again when they die, and the orders that they work on."""

    def __init__(self, log: Log, log_url: str, urls: dict[str, str], kind: str, seed: int, folder: Path) -> None:
        self.dice, self.seed, self._folder = random.Random(seed), seed, folder
        self._log, self._log_url, self._urls, self._kind = log, log_url, urls, kind
        self._sent: set[str] = set()
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self.workers: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._lives = 0

    async def hire(self, service: str, count: int) -> None:
        names = [f"{service}-{len(self.workers) + n}" for n in range(count)]
        await asyncio.gather(*(self._start(service, name) for name in names))
        self._keepers += [asyncio.create_task(self._keep(service, name), name=name) for name in names]

    async def _start(self, service: str, name: str) -> None:
        self._lives += 1
        words = (self._log_url, self._urls[service], service, self._kind, f"{name}.{self._lives}")
        program = (sys.executable, "-m", "tests.faults.inbox_process", *words)
        self.workers[name] = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)

    async def _keep(self, service: str, name: str) -> None:
        while True:
            await self.workers[name].wait()
            await self._start(service, name)

    def kill(self, service: str) -> None:
        name = self.dice.choice([name for name in self.workers if name.startswith(service)])
        with suppress(ProcessLookupError):
            self.workers[name].send_signal(signal.SIGKILL)

    async def send(self, count: int) -> None:
        for _ in range(count):
            key = f"o{self.dice.randrange(30)}"
            n = self._numbers[key] = self._numbers[key] + 1
            topic = f"shop/orders/{key}/placed"
            found = DECLARED.find(topic)
            draft = Draft(Event(topic, msgspec.json.encode({"n": n}), f"{key}-{n}", Meta()), found.key)
            (answer,) = await self._log.append(found.partition, [draft], patient=True)
            assert isinstance(answer, Appended)
            self._sent.add(draft.event.id)

    async def rest(self, within: float = 60.0) -> Story:
        stores = [await _opened(self._urls[service]) for service in ("stock", "mail")]

        async def quiet() -> bool:
            if (await stores[0].due(1))[0]:
                return False
            try:
                asked = [
                    await self._log.groups.ask(place, f"shop.{service}")
                    for place in self._log.partitions()
                    for service in ("stock", "mail")
                ]
            except NotAvailable:
                return False
            return not any(state.lag or state.parked for state in asked)

        with suppress(pytest.fail.Exception):
            await eventually(quiet, within)
        taken, told = [await _done(store) for store in stores]
        waiting = len((await stores[0].due(1_000))[0])
        for store in stores:
            await store.close()
        return Story(self._sent, taken, told, waiting)

    async def verdict(self) -> None:
        """Wait until all is at rest, and fail with the seed and the story of the run where something was not kept."""
        story = await self.rest()
        path = self._folder / "story.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(story)))
        assert complaints(story) == set(), f"FAULT_SEED={self.seed}; its story: {path}"

    async def end(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        for worker in self.workers.values():
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()


async def _opened(url: str) -> Store:
    async with asyncio.timeout(60):
        while True:
            try:
                return await Database(tables=TABLES).open(url)
            except Unavailable:
                await asyncio.sleep(0.05)


async def _done(store: Store) -> Done:
    async with store.read() as db:
        rows = await db.execute(sa.select(DONE.c.id, DONE.c.key, DONE.c.n).order_by(DONE.c.seq))
        return [(row[0], row[1], row[2]) for row in rows]


@asynccontextmanager
async def opened(
    log_url: str, urls: dict[str, str], seed: int, folder: Path, kind: str = "Whole"
) -> AsyncIterator[Shop]:
    log = await Log.open(log_url, [AppLog("shop")], partitions=PARTITIONS)
    running = asyncio.create_task(log.run(), name="log")
    shop = Shop(log, log_url, urls, kind, seed, folder)
    try:
        yield shop
    finally:
        await shop.end()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await log.close()


def files(folder: Path) -> dict[str, str]:
    return {service: f"sqlite:///{folder}/{service}.db" for service in ("stock", "mail")}


async def _suffer(shop: Shop, kills: int = 6) -> None:
    await shop.hire("stock", 2)
    await shop.hire("mail", 1)
    for _ in range(kills):
        await shop.send(80)
        shop.kill("stock")
        await asyncio.sleep(shop.dice.random() * LEASE)  # what the fault is made of: a moment of its choice
        shop.kill("mail" if shop.dice.random() < 0.3 else "stock")
        await shop.send(40)


async def test_workers_killed_at_random_on_sqlite(
    fresh_log_server: Callable[..., Server], tmp_path: Path, seed: int
) -> None:
    async with opened(fresh_log_server().url, files(tmp_path), seed, tmp_path) as shop:
        await _suffer(shop)
        await shop.verdict()


async def test_workers_and_the_database_killed_on_postgresql(
    valkey: Server, postgresql: Server, tmp_path: Path, seed: int
) -> None:
    urls = {service: await asyncio.to_thread(new_database, postgresql, service) for service in ("stock", "mail")}
    async with opened(valkey.url, urls, seed, tmp_path) as shop:
        await _suffer(shop, 2)
        await asyncio.to_thread(postgresql.kill)
        await shop.send(80)
        await asyncio.to_thread(postgresql.start)
        await _suffer(shop, 2)
        await shop.verdict()


async def test_the_log_server_killed_while_the_outbox_is_emptied(valkey: Server, tmp_path: Path, seed: int) -> None:
    async with opened(valkey.url, files(tmp_path), seed, tmp_path) as shop:
        await shop.hire("stock", 2)
        await shop.hire("mail", 1)
        for _ in range(3):
            await shop.send(150)
            await asyncio.to_thread(valkey.kill)
            await asyncio.to_thread(valkey.start)
        await shop.verdict()


async def test_a_worker_stopped_while_it_leads_the_outbox(valkey: Server, tmp_path: Path, seed: int) -> None:
    async with opened(valkey.url, files(tmp_path), seed, tmp_path) as shop:
        await shop.hire("stock", 2)
        await shop.hire("mail", 1)
        for worker in list(shop.workers.values())[:2]:
            await shop.send(100)
            worker.send_signal(signal.SIGSTOP)
            await shop.send(100)
            await asyncio.sleep(2 * LEASE)  # longer than its leases
            worker.send_signal(signal.SIGCONT)
        await shop.verdict()


@pytest.mark.parametrize(("kind", "said"), [("NoInbox", "doubled"), ("NoOutbox", "untold")])
async def test_a_database_without_it_is_found(kind: str, said: str, valkey: Server, tmp_path: Path, seed: int) -> None:
    async with opened(valkey.url, files(tmp_path), seed, tmp_path, kind) as shop:
        await shop.hire("stock", 2)
        await shop.hire("mail", 1)
        for _ in range(6):  # a kill may hit at a moment that harms nothing
            for _ in range(3):
                await shop.send(80)
                shop.kill("stock")
            if said in complaints(await shop.rest(within=10)):
                return
        pytest.fail(f"{kind} was not found")
