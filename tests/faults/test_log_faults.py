"""The log under faults: what was acknowledged stays, order stays, and what a failover takes is announced."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis

from gateway.adapters.embedded import Server, free_port
from gateway.adapters.log import Log, epochs
from gateway.adapters.log.writer import Writer
from gateway.core.declared import Topic
from gateway.core.event import Position
from gateway.errors import StorageFull, Unavailable
from tests.contracts.log_running import draft
from tests.faults.log_checker import complaints
from tests.faults.log_load import (
    AcknowledgesEarly,
    IgnoresReplicas,
    KeepsOldEpochs,
    Load,
    NewestFirst,
    NewIdPerTry,
    OpensUnasked,
    P,
    TakesSilenceForYes,
    running,
    story,
)
from tests.faults.proxy import Proxy, proxy
from tests.gateways import client, running_edge, token
from tests.servers import eventually

Start = Callable[..., Server]
#: What `Load` publishes, under its keys.
WATCHED = Topic(pattern="devices/{device}/x", key="devices/{device}", read=("user",))


# --- kill -9 --------------------------------------------------------------------------------------------------------


async def _killed_twice(server: Server, log: Log, load: Load) -> None:
    load.pour()
    for life in range(2):
        have = len(load.acknowledged)
        await eventually(lambda have=have: len(load.acknowledged) > have + 300)
        await asyncio.to_thread(server.kill)
        assert log.state == "up" or log.down_since is not None
        await asyncio.to_thread(server.start)
        await eventually(lambda life=life: log.counters.epoch_changes == life + 2)
    have = len(load.acknowledged)
    await eventually(lambda: len(load.acknowledged) > have + 300)
    await load.settle()


async def test_killed_under_load_nothing_acknowledged_is_lost(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        load = Load(log)
        await load.watch()
        await _killed_twice(server, log, load)
        await eventually(lambda: load.seen and load.seen[-1][1] >= max(load.acknowledged.values()))
        told = await story(log, load, lives=3, doubles=True)
        assert complaints(told) == set()
        assert len(load.acknowledged) == len(load.sent)
        assert len(load.opened) == 2
        assert load.lost == 0
        await load.end()


async def test_killed_under_load_whoever_does_not_wait_hears_it(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        load = Load(log, patient=False)
        await _killed_twice(server, log, load)
        assert complaints(await story(log, load, lives=3)) == set()
        assert {type(error) for error in load.refused} <= {Unavailable} | set(Unavailable.__subclasses__())
        assert all(error.retry_after for error in load.refused)
        await load.end()


async def test_a_writer_that_acknowledges_early_is_found(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url, AcknowledgesEarly) as log:
        load = Load(log)
        await _killed_twice(server, log, load)
        await load.end()
        assert "lost" in complaints(await story(log, load, lives=3))


# --- failover -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _replicated(
    start: Start, durability: str, writer: type[Writer] = Writer
) -> AsyncIterator[tuple[Log, Load, str, Callable[[], Awaitable[None]]]]:
    """Load on a master with a replica; the url of whichever of them is the master, and what fails over.

    Before, the replica hears its master no more. It lags by a deaf proxy: one that is stopped still finds megabytes in
    its socket when it goes on.
    """
    master = start(port=free_port(), extra=["repl-diskless-sync-delay 0"])
    there = f"redis://127.0.0.1:{master.port}"
    async with proxy(there) as behind, proxy(there) as between:
        replica = start(port=free_port(), extra=[f"replicaof 127.0.0.1 {behind.port}"])
        second = redis.Redis(port=replica.port)
        await eventually(functools.partial(_linked, second))
        async with running(between.url, writer, durability=durability) as log:
            load = Load(log)
            await load.watch()
            load.pour()
            await eventually(lambda: len(load.acknowledged) > 300)

            async def fail() -> None:
                behind.swallow = True
                have = len(load.acknowledged)
                if durability == "replica" and writer is Writer:
                    # Now nothing is acknowledged any more, while the master still stores.
                    swallowed = behind.swallowed
                    await eventually(lambda: behind.swallowed > swallowed + 1_000)
                else:
                    await eventually(lambda: len(load.acknowledged) > have + 1_000)
                await asyncio.to_thread(master.kill)
                await second.replicaof("NO", "ONE")
                between.to = f"redis://127.0.0.1:{replica.port}"
                between.cut()

            yield log, load, between.url, fail
            await load.end()
        await second.aclose()


@asynccontextmanager
async def _failing_over(
    start: Start, durability: str, writer: type[Writer] = Writer
) -> AsyncIterator[tuple[Log, Load]]:
    async with _replicated(start, durability, writer) as (log, load, _, fail):
        await fail()
        yield log, load


async def _linked(replica: redis.Redis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def test_a_failover_takes_nothing_that_a_replica_confirmed(fresh_log_server: Start) -> None:
    async with _failing_over(fresh_log_server, "replica") as (log, load):
        await eventually(lambda: log.counters.epoch_changes == 2)
        acknowledged = dict(load.acknowledged)
        told = await story(log, load, lives=2, doubles=True)
        assert complaints(told) - {"seen otherwise"} == set()
        # The survivor has no replica: nothing more is acknowledged until one is there.
        assert acknowledged == load.acknowledged


async def test_what_a_failover_takes_is_announced(fresh_log_server: Start) -> None:
    async with _failing_over(fresh_log_server, "disk") as (log, load):
        await eventually(lambda: log.counters.epoch_changes == 2)
        table = await log.epochs(P)
        first = table.first[table.current]
        before = [at for at in load.acknowledged.values() if at.epoch != table.current]
        assert max(before).offset >= first
        assert not table.continuous(max(before))
        assert table.continuous(Position(max(before).epoch, first - 1))
        await eventually(lambda: load.lost == 1)
        assert load.opened
        await load.settle()
        told = await story(log, load, lives=2, doubles=True)
        # Exactly what the epochs announce is gone, and nothing else.
        stored = {id for id, _ in told.stored}
        gone = {at for id, at in load.acknowledged.items() if id not in stored}
        assert gone
        assert not any(table.continuous(at) for at in gone)


async def _returned(start: Start) -> tuple[dict[str, Any], Position]:
    """What an edge, there all the while, answers a client who had seen what the failover took; and where that was."""
    async with (
        _replicated(start, "disk") as (log, load, url, fail),
        running_edge(url, [WATCHED], partitions=1) as edge,
        client(edge.ws, token()) as alice,
        client(edge.ws, token()) as bob,
    ):
        assert "subscribe" in await alice.ask("subscribe", channel="devices/1/x")
        await fail()
        await eventually(lambda: log.counters.epoch_changes == 2)
        current = (await log.epochs(P)).current
        gone = max(at for at in load.acknowledged.values() if at.epoch != current)
        # Other events stand by now where those were.
        await eventually(lambda: max(load.acknowledged.values()).offset > gone.offset)
        await load.settle()
        top = max(load.acknowledged.values()).offset
        await eventually(lambda: edge.edge.readers.feed(P).position.offset >= top)
        where = {"epoch": str(gone.epoch), "offset": gone.offset}
        return (await bob.ask("subscribe", channel="devices/1/x", recover=True, **where))["subscribe"], gone


async def test_who_saw_what_a_failover_took_is_told(fresh_log_server: Start) -> None:
    answer, gone = await _returned(fresh_log_server)
    assert answer["was_recovering"]
    assert not answer.get("recovered", False)
    assert int(answer["epoch"]) > gone.epoch


async def test_an_edge_that_keeps_old_epochs_is_found(fresh_log_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.edge.readers.Feed", KeepsOldEpochs)
    answer, _ = await _returned(fresh_log_server)
    assert answer["recovered"]


async def test_a_writer_that_does_not_look_at_the_replicas_is_found(fresh_log_server: Start) -> None:
    async with _failing_over(fresh_log_server, "replica", IgnoresReplicas) as (log, load):
        await eventually(lambda: log.counters.epoch_changes == 2)
        await load.settle()
        assert "lost" in complaints(await story(log, load, lives=2, doubles=True))


async def test_without_a_replica_nothing_is_acknowledged(fresh_log_server: Start) -> None:
    master = fresh_log_server(port=free_port(), extra=["repl-diskless-sync-delay 0"])
    replica = fresh_log_server(port=free_port(), extra=[f"replicaof 127.0.0.1 {master.port}"])
    async with redis.Redis(port=replica.port) as second:
        await eventually(functools.partial(_linked, second))
    async with running(master.url, durability="replica") as log:
        os.kill(replica.pid, signal.SIGSTOP)
        patient = Load(log, name="p")
        impatient = Load(log, name="i", patient=False)
        try:
            impatient.pour()
            await eventually(lambda: len(impatient.refused) >= 20)
            patient.pour()
            await eventually(lambda: len(impatient.refused) >= 200)
            assert not impatient.acknowledged
            assert not patient.acknowledged
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        await eventually(lambda: patient.acknowledged and impatient.acknowledged)
        await patient.settle()
        await impatient.settle()
        # Waiting for the replica is no reason to append again.
        assert "double" not in complaints(await story(log, patient, impatient))
        await patient.end()
        await impatient.end()


# --- memory full ----------------------------------------------------------------------------------------------------


async def _filled(server: Server, log: Log, load: Load) -> None:
    async with redis.Redis.from_url(server.url) as raw:
        load.pour()
        await eventually(lambda: len(load.acknowledged) > 200)
        for _ in range(3):
            retries = log.counters.retries
            await raw.config_set("maxmemory", 1)
            await eventually(lambda retries=retries: log.counters.retries > retries + 2)
            (answer,) = await log.append(P, [draft("devices/0/x", "impatient")])
            assert isinstance(answer, StorageFull)
            have = len(load.acknowledged)
            await raw.config_set("maxmemory", 0)
            await eventually(lambda have=have: len(load.acknowledged) > have + 200)
        await load.settle()


async def test_full_and_drained_the_patient_arrive_in_order(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        load = Load(log)
        await load.watch()
        await _filled(server, log, load)
        await eventually(lambda: load.seen and load.seen[-1][1] >= max(load.acknowledged.values()))
        assert complaints(await story(log, load)) == set()
        assert len(load.acknowledged) == len(load.sent)
        await load.end()


async def test_a_writer_that_sends_newer_first_is_found(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url, NewestFirst) as log:
        load = Load(log)
        await _filled(server, log, load)
        assert "order" in complaints(await story(log, load))
        await load.end()


# --- two writers ----------------------------------------------------------------------------------------------------


async def _four_lives(server: Server, *loads: Load) -> None:
    for load in loads:
        load.pour()
    for _ in range(3):
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        have = [len(load.acknowledged) for load in loads]
        await eventually(
            lambda have=have: all(len(load.acknowledged) > n + 200 for load, n in zip(loads, have, strict=True))
        )
    for load in loads:
        await load.settle()


async def test_two_writers_open_one_epoch_per_life_and_reuse_no_offset(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with running(server.url) as one, running(server.url) as two:
        loads = Load(one, name="a"), Load(two, name="b")
        await _four_lives(server, *loads)
        assert one.counters.epoch_changes + two.counters.epoch_changes == 4
        # Between two writers there is no order; each keeps its own.
        for load in loads:
            mine = await story(one, load, lives=4, doubles=True)
            assert complaints(mine) == {"phantom"}
        assert complaints(await story(one, *loads, lives=4, doubles=True)) <= {"order"}
        for load in loads:
            await load.end()


async def test_two_writers_that_open_epochs_without_comparing_are_found(
    fresh_log_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "EPOCH", OpensUnasked())
    server = fresh_log_server()
    async with running(server.url) as one, running(server.url) as two:
        loads = Load(one, name="a"), Load(two, name="b")
        await _four_lives(server, *loads)
        assert "epochs" in complaints(await story(one, *loads, lives=4, doubles=True))
        for load in loads:
            await load.end()


# --- a request or a reply lost --------------------------------------------------------------------------------------


async def _lost_on_the_wire(between: Proxy, load: Load, way: str) -> None:
    load.pour()
    for _ in range(3):
        have = len(load.acknowledged)
        await eventually(lambda have=have: len(load.acknowledged) > have + 200)
        swallowed = between.swallowed
        setattr(between, way, True)
        await eventually(lambda swallowed=swallowed: between.swallowed > swallowed)
        between.cut()
        setattr(between, way, False)
    have = len(load.acknowledged)
    await eventually(lambda: len(load.acknowledged) > have + 200)
    await load.settle()


async def test_a_lost_reply_costs_at_most_doubles(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with proxy(server.url) as between, running(between.url) as log:
        load = Load(log)
        await _lost_on_the_wire(between, load, "swallow")
        told = await story(log, load, doubles=True)
        assert complaints(told) == set()
        assert len(load.acknowledged) == len(load.sent)
        stored = [id for id, _ in told.stored]
        assert len(stored) > len(set(stored))  # the fault did happen
        await load.end()


async def test_a_lost_request_costs_nothing(fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with proxy(server.url) as between, running(between.url) as log:
        load = Load(log)
        await _lost_on_the_wire(between, load, "deaf")
        assert complaints(await story(log, load)) == set()
        assert len(load.acknowledged) == len(load.sent)
        await load.end()


@pytest.mark.parametrize(
    ("writer", "way", "complaint"), [(NewIdPerTry, "swallow", "phantom"), (TakesSilenceForYes, "deaf", "lost")]
)
async def test_a_writer_that_errs_on_what_is_lost_is_found(
    fresh_log_server: Start, writer: type[Writer], way: str, complaint: str
) -> None:
    server = fresh_log_server()
    async with proxy(server.url) as between, running(between.url, writer) as log:
        load = Load(log)
        await _lost_on_the_wire(between, load, way)
        assert complaint in complaints(await story(log, load, doubles=True))
        await load.end()
