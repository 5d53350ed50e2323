"""Workers under faults: nothing is lost, keys keep their order, poison is buried with its reason, nothing stays."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Server
from tests.faults.worker_checker import complaints
from tests.faults.worker_load import Fleet, fleet
from tests.faults.worker_process import LEASE

Start = Callable[..., Server]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    with embedded.valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def seed() -> int:
    return random.randrange(2**32)


async def _killed(workers: Fleet, kills: int) -> None:
    workers.faults = True
    for _ in range(kills):
        await workers.more(150)
        workers.dice.choice(workers.workers).send(signal.SIGKILL)
        await asyncio.sleep(workers.dice.random() * LEASE)


async def test_workers_killed_at_random_under_load(fresh_log_server: Start, tmp_path: Path, seed: int) -> None:
    async with fleet(fresh_log_server().url, tmp_path, seed) as workers:
        await workers.add(3)
        workers.pour()
        await _killed(workers, 4)
        story = await workers.rest()
        assert complaints(story) == set()
        # An inbox would drop them: what ran when its worker died, and what waited to be remembered.
        assert story.doubles < len(story.sent) / 4


async def test_without_faults_no_effect_is_doubled_while_workers_come_and_go(
    valkey: Server, tmp_path: Path, seed: int
) -> None:
    async with fleet(valkey.url, tmp_path, seed) as workers:
        await workers.add()
        workers.pour()
        await workers.more(200)
        await workers.add(4)
        await workers.more(300)
        for worker in workers.workers[:4]:  # a rolling restart that ends with one
            worker.send(signal.SIGTERM)
            assert await worker.gone() == 0
            await workers.more(50)
        story = await workers.rest()
        assert complaints(story) == set()


async def test_zombies_that_wake_after_their_lease(valkey: Server, tmp_path: Path, seed: int) -> None:
    async with fleet(valkey.url, tmp_path, seed) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour()
        for worker in workers.workers:
            await workers.more(200)
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE)  # what the fault is made of: longer than its lease
            worker.send(signal.SIGCONT)
        await workers.more(200)
        assert complaints(await workers.rest()) == set()


async def test_poison_of_every_kind_is_buried_and_bystanders_are_not(valkey: Server, tmp_path: Path, seed: int) -> None:
    async with fleet(valkey.url, tmp_path, seed) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour(4)
        await workers.more(50)
        for does, data, reason in (
            (["", ""], b'{"n":"x"}', "schema"),
            (["never"] * 3, b"", "gave_up"),
            (["hang"] * 2, b"", "gave_up"),
            (["kill"], b"", "crash_loop"),
        ):
            await workers.send(does, data, reason)
        await workers.more(300)
        await _buried(workers)
        assert complaints(await workers.rest()) == set()


async def _buried(workers: Fleet) -> None:
    async with asyncio.timeout(60):
        while True:
            letters = [one for p in workers.log.partitions() for _, one in await workers.log.dead(p)]
            if {letter.id for letter in letters} >= workers.poison.keys():
                return
            await asyncio.sleep(0.1)


async def test_the_log_server_killed_under_load(fresh_log_server: Start, tmp_path: Path, seed: int) -> None:
    server = fresh_log_server()
    async with fleet(server.url, tmp_path, seed) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour()
        for _ in range(2):
            await workers.more(200)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await workers.more(200)
        assert complaints(await workers.rest()) == set()


async def test_a_worker_that_settles_early_is_found(valkey: Server, tmp_path: Path, seed: int) -> None:
    async with fleet(valkey.url, tmp_path, seed, "SettlesEarly") as workers:
        await workers.add(2)
        workers.pour()
        await _killed(workers, 3)
        assert "lost" in complaints(await workers.rest(within=3 * LEASE))
