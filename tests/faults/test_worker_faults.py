"""Workers under faults: nothing is lost, keys keep their order, nobody settles what he does not hold, nothing stays.

What is broken in the worker alone is shown on one server; what the log server has a part in, on each.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.adapters.child import Server
from tests.faults.proxy import Proxy, proxy
from tests.faults.worker_checker import complaints
from tests.faults.worker_load import MIXED, Fleet, fleet
from tests.faults.worker_process import LEASE
from tests.servers import eventually

Start = Callable[..., Server]


async def _found(workers: Fleet, complaint: str, fault: Callable[[], Awaitable[None]]) -> None:
    """Do it until it shows: a fault of a moment is missed by some, on a machine that has other things to do."""
    found, where = set[str](), ""
    for _ in range(12):
        await fault()
        story = await workers.told()
        found, where = complaints(story), workers.kept(story)
        if complaint in found:
            return
    raise AssertionError(f"{found}, {where}")


# --- killed ---------------------------------------------------------------------------------------------------------


async def _killed(workers: Fleet, kills: int) -> None:
    workers.faults = True
    for _ in range(kills):
        await workers.more(150)
        workers.dice.choice(workers.workers).send(signal.SIGKILL)
        await asyncio.sleep(workers.dice.random() * LEASE)


async def test_workers_killed_at_random_under_load(fresh_log_server: Start, tmp_path: Path) -> None:
    async with fleet(fresh_log_server().url, tmp_path) as workers:
        await workers.add(3)
        workers.pour()
        await _killed(workers, 4)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)
        # An inbox would drop them: what ran when its worker died, and what waited to be remembered.
        assert story.doubles < len(story.sent) / 4, workers.kept(story)


async def test_a_worker_that_settles_early_is_found(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path, "SettlesEarly") as workers:
        await workers.add(2)
        workers.pour()
        await _killed(workers, 3)
        story = await workers.rest(within=3 * LEASE)
        assert "lost" in complaints(story), workers.kept(story)


async def test_a_worker_that_emits_under_new_names_is_found(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path, "EmitsAnew") as workers:
        await workers.add(2)
        workers.pour()
        await _found(workers, "emitted anew", lambda: _killed(workers, 1))


async def test_the_log_server_and_workers_killed_under_load(fresh_log_server: Start, tmp_path: Path) -> None:
    server = fresh_log_server()
    async with fleet(server.url, tmp_path) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour()
        for both in (False, True, True):
            await workers.more(200)
            if both:
                workers.dice.choice(workers.workers).send(signal.SIGKILL)
                await asyncio.sleep(workers.dice.choice([0.0, workers.dice.random() * LEASE]))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await workers.more(200)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


# --- stopped --------------------------------------------------------------------------------------------------------


async def _stopped(workers: Fleet) -> None:
    """One of them, until the others have all that it had, and have gone on."""
    workers.faults = True
    worker = workers.dice.choice(workers.workers)
    await workers.more(200)
    worker.send(signal.SIGSTOP)
    await eventually(lambda: workers.lost_all(worker), within=60)
    await workers.more(200)
    worker.send(signal.SIGCONT)
    await workers.more(200)


async def test_zombies_that_wake_after_their_lease(fresh_log_server: Start, tmp_path: Path) -> None:
    async with fleet(fresh_log_server().url, tmp_path) as workers:
        await workers.add(2)
        workers.pour()
        await _stopped(workers)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


async def test_a_log_that_lets_zombies_settle_is_found(fresh_log_server: Start, tmp_path: Path) -> None:
    async with fleet(fresh_log_server().url, tmp_path, "Unfenced") as workers:
        await workers.add(2)
        workers.pour()
        await _found(workers, "unfenced", lambda: _stopped(workers))


# --- rolled ---------------------------------------------------------------------------------------------------------


async def _rolled(workers: Fleet) -> None:
    """From one to five and, one after another, back to one; lanes wait behind parked heads all the time."""
    await workers.add()
    workers.pour(does=("", "", "", "slow", "flaky"))
    await workers.more(200)
    await workers.add(4)
    await workers.more(300)
    for worker in workers.workers[:4]:
        await eventually(workers.parked, within=60)
        worker.send(signal.SIGTERM)
        assert await worker.gone() == 0
        await workers.more(50)


async def test_without_faults_no_effect_is_doubled_while_workers_come_and_go(
    fresh_log_server: Start, tmp_path: Path
) -> None:
    async with fleet(fresh_log_server().url, tmp_path) as workers:
        await _rolled(workers)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


async def test_a_worker_that_does_not_say_what_it_finished_is_found(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path, "HandsOverNothing") as workers:
        await workers.add(2)

        async def replace() -> None:
            # Half a second of work for each key, however fast they are: when some of it is done, some of it is not.
            sending = asyncio.create_task(workers.send(["slow"] * 1_000), name="sending")
            await workers.more(100)
            await sending
            oldest = workers.workers[-2]
            oldest.send(signal.SIGTERM)
            assert await oldest.gone() == 0
            await workers.add()

        await _found(workers, "doubled", replace)


# --- cut off --------------------------------------------------------------------------------------------------------


async def _cut_off(workers: Fleet, between: Proxy) -> None:
    """What workers ask is done, and they do not hear it."""
    await workers.more(150)
    swallowed, between.swallow = between.swallowed, True
    await eventually(lambda: between.swallowed > swallowed, within=60)
    # What ends now is settled once more by each partition, and no answer comes.
    await asyncio.sleep(workers.dice.random() * LEASE / 4)
    between.cut()
    between.swallow = False


async def test_replies_lost_on_the_wire_under_load(fresh_log_server: Start, tmp_path: Path) -> None:
    server = fresh_log_server()
    async with proxy(server.url) as between, fleet(server.url, tmp_path, workers_url=between.url) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour(does=(*MIXED, "wrong"))
        for _ in range(5):
            await _cut_off(workers, between)
        await workers.more(150)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


async def test_a_worker_that_asks_anew_what_it_did_not_hear_is_found(fresh_log_server: Start, tmp_path: Path) -> None:
    server = fresh_log_server()
    async with (
        proxy(server.url) as between,
        fleet(server.url, tmp_path, "RetriesAnew", workers_url=between.url) as workers,
    ):
        await workers.add(2)
        workers.pour(does=(*MIXED, "wrong"))
        await _found(workers, "settled twice", lambda: _cut_off(workers, between))
