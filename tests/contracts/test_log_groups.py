"""What everyone may expect of groups: one holder per partition, nothing done by who lost it, nothing half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio as client

from gateway.adapters.embedded import Server, free_port
from gateway.adapters.log import Lease, Log
from gateway.adapters.log.group import Start
from gateway.core.event import Record
from gateway.core.lanes import Changes
from gateway.errors import Fenced
from tests.contracts.group_running import LONG, SHORT, G, at, done, filled, item, letter, taken
from tests.contracts.log_running import HANG, P, draft, following, running
from tests.faults.proxy import proxy
from tests.servers import eventually

# --- the lease ------------------------------------------------------------------------------------------------------


async def test_one_worker_holds_a_partition_of_a_group(log_server: str) -> None:
    async with running(log_server) as log:
        workers = [log.groups.take(P, G, f"w{n}", "earliest", LONG) for n in range(20)]
        leases = [lease for lease in await asyncio.gather(*workers) if lease is not None]
        assert len(leases) == 1
        other = await log.groups.take(P, "devices.reports", "w1", "earliest", LONG)
        assert other is not None
        assert await log.groups.names(P) == [G, "devices.reports"]


@pytest.mark.parametrize(("start", "cursor"), [("earliest", 0), ("latest", 11), (5, 5), (10_000, 11)])
async def test_a_new_group_begins_where_it_is_told(log_server: str, start: Start, cursor: int) -> None:
    async with running(log_server) as log:
        await filled(log)
        lease = await taken(log, start=start)
        assert (lease.cursor, lease.claimed, lease.suspects_to, lease.parked) == (cursor, cursor, 0, [])
        await lease.release()
        assert (await taken(log, start="latest")).cursor == cursor  # only a new one


async def test_a_lease_that_was_released_is_clean_and_one_that_expired_is_not(log_server: str) -> None:
    async with running(log_server) as log:
        await filled(log)
        lease = await taken(log)
        await lease.settle(done(4), 8)
        await lease.release()
        lease = await taken(log, ttl=SHORT)
        assert (lease.cursor, lease.claimed, lease.suspects_to) == (4, 4, 0)
        await lease.settle(None, 9)
        await lease.settle(done(5), 7)  # what was handed out stays handed out
        lease = await taken(log, "w2")
        assert (lease.cursor, lease.claimed, lease.suspects_to) == (5, 9, 9)


async def test_a_worker_that_is_started_again_waits_for_no_lease_of_its_own(log_server: str) -> None:
    async with running(log_server) as log:
        await filled(log)
        killed = await taken(log)
        await killed.settle(done(3), 5)
        assert await log.groups.take(P, G, "w2", "earliest", LONG) is None
        lease = await log.groups.take(P, G, "w1", "earliest", LONG)
        assert lease is not None
        assert (lease.cursor, lease.claimed, lease.suspects_to) == (3, 5, 5)  # what it died of is suspect
        with pytest.raises(Fenced):
            await killed.settle(done(4), 5)


async def test_settle_and_renew_extend_a_lease(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        lease = await taken(log)
        for extend in (lambda: lease.settle(None, 0), lease.renew, lambda: lease.suspect(2)):
            await raw.hset("{devices.0}:group:devices.alerts", "until", 1)
            await extend()
            assert await log.groups.take(P, G, "w2", "earliest", LONG) is None


async def test_a_holder_whose_time_is_over_goes_on_while_nobody_took_it(log_server: str) -> None:
    async with running(log_server) as log:
        await filled(log)
        lease = await taken(log, ttl=SHORT)
        await eventually(lambda: _free(log))
        await lease.settle(done(3), 3)
        assert (await log.groups.ask(P, G)).cursor == 3


async def _free(log: Log) -> bool:
    return (await log.groups.ask(P, G)).holder == ""


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_server_clock_that_jumps_holds_no_partition_for_an_hour(log_server: str, hours: int) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        zombie = await taken(log)
        # Seen from a clock that was set back, the lease ends in an hour; from one set forward, it ended long ago.
        until = int(await raw.hget("{devices.0}:group:devices.alerts", "until"))
        await raw.hset("{devices.0}:group:devices.alerts", "until", until - hours * 3_600_000)
        lease = await log.groups.take(P, G, "w2", "earliest", LONG)
        assert lease is not None
        with pytest.raises(Fenced):
            await zombie.renew()


# --- fencing --------------------------------------------------------------------------------------------------------

record = Record(draft("devices/0/x", "id-0").event, P, 1, 2)
#: What a zombie may try.
TRIES: dict[str, Callable[[Lease], Awaitable[object]]] = {
    "settle": lambda lease: lease.settle(done(9), 9),
    "claim": lambda lease: lease.settle(None, 9),
    "park": lambda lease: lease.settle(done(9, parked=(item(record),)), 9),
    "bury": lambda lease: lease.settle(done(9), 9, [letter(record)]),
    "suspect": lambda lease: lease.suspect(2),
    "renew": lambda lease: lease.renew(),
    "release": lambda lease: lease.release(),
}


async def _snapshot(url: str) -> dict[bytes, object]:
    async with at(url) as raw:
        return {key: await raw.dump(key) for key in await raw.keys("*") if not key.endswith(b":trimmer")}


@pytest.mark.parametrize("name", TRIES)
async def test_a_zombie_can_do_nothing(log_server: str, name: str) -> None:
    async with running(log_server) as log:
        await filled(log)
        zombie = await taken(log, ttl=SHORT)
        lease = await taken(log, "w2")
        before = await _snapshot(log_server)
        with pytest.raises(Fenced):
            await TRIES[name](zombie)
        assert await _snapshot(log_server) == before
        await lease.release()
        with pytest.raises(Fenced):
            await TRIES[name](lease)  # nor can who released
        assert log.counters.fenced == 2


@pytest.mark.parametrize("name", TRIES)
async def test_another_life_of_the_server_voids_leases(log_server: str, name: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        await filled(log)
        lease = await taken(log)
        # Fenced at once, although nobody opened the new epoch yet.
        await raw.hset("{devices.0}:epochs", "replid", "of another server")
        with pytest.raises(Fenced):
            await TRIES[name](lease)
        again = await log.groups.take(P, G, "w1", "earliest", LONG)
        assert again is not None
        assert again.epoch > lease.epoch
        with pytest.raises(Fenced):
            await TRIES[name](lease)


async def test_a_settle_waits_for_a_killed_server_and_is_fenced_by_its_next_life(
    fresh_log_server: Callable[..., Server],
) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        await filled(log)
        lease = await taken(log)
        await lease.settle(done(4), 6)
        await asyncio.to_thread(server.kill)
        settling = asyncio.create_task(lease.settle(done(6), 6), name="settle")
        await asyncio.to_thread(server.start)
        with pytest.raises(Fenced):
            await asyncio.wait_for(settling, HANG)
        lease = await taken(log)
        assert (lease.cursor, lease.claimed, lease.suspects_to) == (4, 6, 6)


async def test_a_failover_voids_leases_and_events_it_forgot_come_again(
    fresh_log_server: Callable[..., Server],
) -> None:
    master = fresh_log_server(port=free_port(), extra=["repl-diskless-sync-delay 0"])
    async with proxy(f"redis://127.0.0.1:{master.port}") as behind:
        replica = fresh_log_server(port=free_port(), extra=[f"replicaof 127.0.0.1 {behind.port}"])
        async with (
            client.Redis(port=replica.port) as second,
            proxy(f"redis://127.0.0.1:{master.port}") as between,
            running(between.url) as log,
        ):
            await eventually(lambda: _in_step(second, behind))
            records = await filled(log)
            lease = await taken(log)
            await lease.settle(done(4), 5, [letter(records[2])])
            await eventually(lambda: _cursor_is(second, b"4"))
            behind.swallow = True
            await log.append(P, [draft("devices/0/x", "of the master alone")])
            await lease.settle(done(12), 12, [letter(records[5])])
            await asyncio.to_thread(master.kill)
            await second.replicaof("NO", "ONE")
            between.to = f"redis://127.0.0.1:{replica.port}"
            between.cut()
            with pytest.raises(Fenced):
                await asyncio.wait_for(lease.settle(done(12), 12), HANG)
            lease = await taken(log)
            # A settle is remembered with its letters or forgotten with them.
            assert (lease.cursor, lease.claimed, lease.suspects_to) == (4, 5, 5)
            assert [one.id for _, one in await log.dead(P)] == ["id-2"]


async def _in_step(replica: client.Redis, _: object) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def _cursor_is(replica: client.Redis, cursor: bytes) -> bool:
    return bool(await replica.hget("{devices.0}:group:devices.alerts", "cursor") == cursor)


async def test_where_the_log_went_back_a_group_goes_back(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        await filled(log, 100)
        lease = await taken(log)
        await lease.settle(done(90), 95)
        await raw.delete("{devices.0}")  # by hand: the log alone, so that offsets are given again
        await raw.delete("{devices.0}:marks")
        await eventually(lambda: raw.exists("{devices.0}"))
        first = (await log.epochs(P)).first
        lease = await taken(log)
        assert lease.cursor == first[max(first)] - 1 < 90


# --- all or nothing -------------------------------------------------------------------------------------------------


async def test_what_is_parked_comes_back_to_the_next_holder(log_server: str) -> None:
    async with running(log_server) as log:
        records = await filled(log)
        lease = await taken(log)
        now = asyncio.get_running_loop().time()
        parked = (item(records[0], 2, now + 1_000, "no such pump: é"), item(records[3], 0))
        await lease.settle(done(8, oldest=2, parked=parked), 8)
        await lease.release()
        lease = await taken(log, "w2")
        first, behind = lease.parked
        assert (first.epoch, first.offset, first.key, first.attempts, first.error) == (
            records[0].epoch, 2, "devices/0/x", 2, "no such pump: é",
        )  # fmt: skip
        assert now + 900 < first.due < asyncio.get_running_loop().time() + 1_000
        assert (behind.offset, behind.due, behind.attempts, behind.parked) == (5, 0.0, 0, True)
        assert first.first_failed > 1_600_000_000_000
        assert await lease.fetch(lease.parked) == {2: records[0], 5: records[3]}
        await lease.settle(done(8, oldest=5, parked=(item(records[0], 3, now + 2_000),)), 8)
        await lease.settle(done(8, released=(2, 5)), 8)
        await lease.release()
        assert (await taken(log)).parked == []


async def test_the_first_failure_is_remembered_over_the_next(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        records = await filled(log)
        lease = await taken(log)
        await lease.settle(done(2, oldest=2, parked=(item(records[0]),)), 2)
        key = "{devices.0}:group:devices.alerts:parked"
        was = await raw.hget(key, "2")
        epoch, attempts, due, _, rest = was.split(b" ", 4)
        await raw.hset(key, "2", b" ".join((epoch, attempts, due, b"1234", rest)))
        await lease.settle(done(2, oldest=2, parked=(item(records[0], 2),)), 2)
        await lease.release()
        (parked,) = (await taken(log)).parked
        assert (parked.attempts, parked.first_failed) == (2, 1234)


async def test_a_settle_of_thousands_is_one(log_server: str) -> None:
    async with running(log_server) as log:
        records = await filled(log, 4_000)
        lease = await taken(log)
        parked = tuple(item(one) for one in records[:3_000])
        await lease.settle(done(4_001, oldest=2, parked=parked), 4_001, [letter(one) for one in records[3_000:]])
        state = await log.groups.ask(P, G)
        assert (state.cursor, state.parked, state.oldest, state.lag) == (4_001, 3_000, 2, 0)
        assert len(await log.dead(P, count=2_000)) == 1_000
        assert len(await lease.fetch(parked)) == 3_000
        await lease.settle(done(4_001, released=tuple(one.offset for one in parked)), 4_001)
        assert (await log.groups.ask(P, G)).parked == 0


async def test_a_settle_whose_reply_is_lost_is_done_once(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    async with proxy(server.url) as between, running(between.url) as log:
        records = await filled(log)
        lease = await taken(log)
        await lease.settle(None, 6)  # now the server has the script
        between.swallow = True
        settling = asyncio.create_task(lease.settle(done(4), 6, [letter(records[0])]), name="settle")
        async with at(server.url) as raw:
            await eventually(lambda: raw.exists("{devices.0}:dead"))
        between.swallow = False
        between.cut()
        await asyncio.wait_for(settling, HANG)
        assert [one.id for _, one in await log.dead(P)] == ["id-0"]
        await lease.settle(done(5), 6, [letter(records[3])])
        assert len(await log.dead(P)) == 2


async def test_a_cancelled_settle_gives_the_lease_up(fresh_log_server: Callable[..., Server]) -> None:
    log_server = fresh_log_server().url
    async with proxy(log_server) as between, running(between.url) as log:
        lease = await taken(log)
        between.deaf = True
        settling = asyncio.create_task(lease.settle(done(1), 1), name="settle")
        before = between.swallowed
        await eventually(lambda: between.swallowed > before)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        between.deaf = False
        between.cut()
        with pytest.raises(Fenced):
            await lease.settle(done(1), 1)


async def test_workers_settle_while_memory_is_full(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        records = await filled(log)
        lease = await taken(log)
        await raw.config_set("maxmemory", 1)
        try:
            await lease.settle(done(6, oldest=2, parked=(item(records[0]),)), 6, [letter(records[1])])
            await lease.renew()
            await lease.release()
            assert (await taken(log)).cursor == 6
        finally:
            await raw.config_set("maxmemory", 0)


# --- suspects -------------------------------------------------------------------------------------------------------


async def test_crashes_are_counted_over_workers_and_forgotten_by_who_survived(log_server: str) -> None:
    async with running(log_server) as log:
        records = await filled(log)
        for crash in (1, 2, 3):
            lease = await taken(log, f"w{crash}", ttl=SHORT)
            assert await lease.suspect(2) == crash
        lease = await taken(log)
        assert lease.suspects_to > 0
        assert lease.crashes(2) == 3
        await lease.settle(done(2, oldest=2, parked=(item(records[0]),)), 2)
        await lease.release()
        lease = await taken(log)
        assert [one.crashes for one in lease.parked] == [3]
        await lease.settle(Changes(2, 3, [], [2], [], [2]), 2)
        await lease.release()
        lease = await taken(log)
        assert lease.crashes(2) == 0
        assert await lease.suspect(2) == 1


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_tail_starts_after_a_cursor_and_reads_the_log_alone(log_server: str) -> None:
    async with running(log_server) as log:
        records = await filled(log)
        tail = log.tail(P)
        await tail.start_at(5)
        await log.publish_live(P, draft("devices/0/typing", "live").event)
        batch = await following(tail)
        assert batch.records == records[4:]
        assert (batch.lost, batch.live, batch.opened) == (False, [], None)
        assert tail.position.offset == 11
        await filled(log, 3)
        assert [one.offset for one in (await following(tail)).records] == [12, 13, 14]


async def test_a_tail_that_starts_before_the_log_says_that_something_is_lost(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        records = await filled(log)
        await raw.xtrim("{devices.0}", minid=f"{records[0].epoch}-6", approximate=False)
        tail = log.tail(P)
        await tail.start_at(3)
        batch = await following(tail)
        assert batch.lost
        assert batch.records == records[4:]
