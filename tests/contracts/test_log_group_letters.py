"""What operators may do to groups: see, pause, move and forget them, and replay their dead letters."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.adapters.log import AppLog, DeadLetter, Log
from gateway.adapters.log.keys import REPLAYS
from gateway.core.delivery import Bury
from gateway.core.event import Meta
from gateway.core.lanes import Changes
from gateway.errors import Busy, Fenced, LimitReached, Misconfigured, NotAvailable
from tests.contracts.group_running import LONG, SHORT, G, at, done, filled, item, letter, taken
from tests.contracts.log_running import P, draft, running
from tests.servers import eventually

# --- operators ------------------------------------------------------------------------------------------------------


async def test_the_state_of_a_group(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        with pytest.raises(NotAvailable):
            await log.groups.ask(P, G)
        records = await filled(log)
        lease = await taken(log)
        await lease.settle(done(4, oldest=2, parked=(item(records[0]),)), 6)
        state = await log.groups.ask(P, G)
        assert (state.cursor, state.top, state.lag, state.parked, state.oldest) == (4, 11, 7, 1, 2)
        assert (state.holder, state.paused) == ("w1", False)
        # What is trimmed lags no more.
        await raw.xtrim("{devices.0}", minid=f"{records[0].epoch}-9", approximate=False)
        assert (await log.groups.ask(P, G)).lag == 3
        await raw.xtrim("{devices.0}", maxlen=0, approximate=False)
        assert (await log.groups.ask(P, G)).lag == 0


async def test_a_paused_group_gives_no_lease_and_its_holder_hears_it(log_server: str) -> None:
    async with running(log_server) as log:
        lease = await taken(log)
        await log.groups.pause(P, G)
        await lease.renew()
        assert lease.paused
        await lease.settle(done(1), 1)
        await lease.release()
        assert await log.groups.take(P, G, "w1", "earliest", LONG) is None
        assert (await log.groups.ask(P, G)).paused
        await log.groups.resume(P, G)
        assert not (await taken(log)).paused


async def test_a_group_may_be_paused_before_it_begins(log_server: str) -> None:
    async with running(log_server) as log:
        await filled(log)
        await log.groups.pause(P, G)
        assert await log.groups.take(P, G, "w1", "earliest", LONG) is None
        with pytest.raises(NotAvailable):
            await log.groups.seek(P, G, "earliest")
        await log.groups.resume(P, G)
        assert (await taken(log, start="latest")).cursor == 11


async def test_seeking_moves_the_cursor_and_forgets_what_will_be_read_again(log_server: str) -> None:
    async with running(log_server) as log:
        records = await filled(log)
        lease = await taken(log)
        await lease.suspect(9)
        await lease.settle(done(11, oldest=3, parked=(item(records[1]), item(records[7]))), 11, [letter(records[0])])
        ((id, _),) = await log.dead(P)
        await log.groups.replay(P, G, [id])
        with pytest.raises(Busy):
            await log.groups.seek(P, G, 5)
        assert await log.groups.seek(P, G, 5, void=True) == 5
        with pytest.raises(Fenced):
            await lease.settle(done(11), 11)
        lease = await taken(log)
        assert (lease.cursor, lease.claimed, lease.suspects_to) == (5, 5, 0)
        assert [one.offset for one in lease.parked] == [3, REPLAYS + 1]
        assert lease.crashes(9) == 0
        assert (await log.groups.ask(P, G)).oldest == 3
        await lease.release()
        assert await log.groups.seek(P, G, "latest") == 11
        assert await log.groups.seek(P, G, 1_000_000) == 11
        assert await log.groups.seek(P, G, "earliest") == 0


async def test_a_time_becomes_an_offset_by_the_marks(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        records = await filled(log)
        await raw.delete("{devices.0}:marks")
        await raw.zadd("{devices.0}:marks", {f"{records[0].epoch}-{n}": n * 1_000 for n in (3, 7)})
        found = [await log.groups.offset_at(P, ts) for ts in (2_999, 3_000, 6_999, 7_000, 10**13)]
        assert found == [0, 3, 3, 7, 7]


async def test_a_forgotten_group_leaves_nothing_and_fences_its_holder(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        records = await filled(log)
        lease = await taken(log)
        await lease.suspect(2)
        await lease.settle(done(3, oldest=2, parked=(item(records[0]),)), 4)
        await log.groups.forget(P, G)
        with pytest.raises(Fenced):
            await lease.settle(done(4), 4)
        assert await raw.keys("*group*") == []
        assert await log.groups.names(P) == []


@pytest.mark.parametrize("name", ["", "a:parked", "a}b", "a b", "x" * 129, "é", "a\n"])
async def test_a_name_that_would_be_another_key_is_refused(log_server: str, name: str) -> None:
    async with running(log_server) as log:
        with pytest.raises(Misconfigured):
            await log.groups.take(P, name, "w1", "earliest", LONG)
        with pytest.raises(Misconfigured):
            await log.groups.beat(name, "w1")


async def test_workers_know_who_else_lives(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        assert await log.groups.beat(G, "b") == ["b"]
        assert await log.groups.beat(G, "a") == ["a", "b"]
        assert await log.groups.leave(G, "b") == ["a"]
        for jump in (-3_600_000, 3_600_000):  # it died long ago, or the clock was set back since
            beat = int(await raw.hget("{gateway}:workers:devices.alerts", "a"))
            await raw.hset("{gateway}:workers:devices.alerts", "silent", beat + jump)
            assert await log.groups.beat(G, "a") == ["a"]
        assert await raw.hlen("{gateway}:workers:devices.alerts") == 1


# --- dead letters ---------------------------------------------------------------------------------------------------

META = Meta(ts=1_700_000_000_123, producer="device:7", via="mqtt", headers={"unit": "°C"}, correlation=b"\x00\xff")


async def _buried(log: Log, count: int = 3) -> list[tuple[str, DeadLetter]]:
    lease = await taken(log)
    drafts = [draft(f"devices/{i}/x", f"id-{i}", b"\x00\n%d" % i, key="devices/k", meta=META) for i in range(count)]
    await log.append(P, drafts)
    records = await log.recent_deliveries(P, count)
    letters = [
        DeadLetter(
            "gave_up", "why", one.event.topic, one.event.data, one.event.meta,
            group=G, id=one.event.id, at=f"{one.epoch}-{one.offset}", key="devices/k", attempts=5, traceback="Trace…",
        )
        for one in records
    ]  # fmt: skip
    buried = [(item(one), Bury("gave_up", "why")) for one in records]
    cursor = records[-1].offset
    await lease.settle(Changes(cursor, cursor + 1, [], [], buried, []), cursor, letters)
    await lease.release()
    return await log.dead(P)


async def test_dead_letters_are_listed_read_and_dropped(log_server: str) -> None:
    async with running(log_server) as log:
        letters = await _buried(log)
        assert [(one.id, one.reason, one.key, one.traceback) for _, one in letters] == [
            (f"id-{n}", "gave_up", "devices/k", "Trace…") for n in range(3)
        ]
        id, first = letters[0]
        assert await log.dead_letter(P, id) == first
        assert await log.drop_dead(P, [id, "1-1"]) == 1
        assert await log.dead_letter(P, id) is None
        assert await log.dead(P) == letters[1:]
        assert log.counters.buried == 3


async def test_a_replay_reaches_its_group_alone_with_the_original_id(log_server: str) -> None:
    async with running(log_server) as log:
        letters = await _buried(log)
        other = await log.groups.take(P, "devices.reports", "w1", "latest", LONG)
        assert other is not None
        ids = [id for id, _ in letters]
        assert await log.groups.replay(P, "devices.reports", ids) == {}
        numbers = await log.groups.replay(P, G, [*ids, "1-1"])
        assert list(numbers) == ids
        assert await log.groups.replay(P, G, ids) == {}  # each once
        assert await log.dead(P) == []
        lease = await taken(log)
        assert [(one.offset, one.key, one.attempts, one.due) for one in lease.parked] == [
            (number, "devices/k", 0, 0.0) for number in numbers.values()
        ]
        found = await lease.fetch(lease.parked)
        for (_, one), record in zip(letters, found.values(), strict=True):
            assert (record.event.topic, record.event.id, record.event.data) == (one.topic, one.id, one.data)
            assert record.event.meta == META
            assert f"{record.epoch}-{record.offset}" == one.at
        await other.renew()
        assert not other.replays
        assert log.counters.replayed == 3


async def test_a_replay_reaches_who_holds_the_partition_and_outlives_him(log_server: str) -> None:
    async with running(log_server) as log:
        letters = await _buried(log)
        lease = await taken(log, ttl=SHORT)
        assert await lease.fresh() == []
        await log.groups.replay(P, G, [letters[0][0]], b'{"mended": true}')
        await lease.renew()
        known = lease.replays, await lease.fresh(), lease.replays, await lease.fresh()
        one = known[1][0]
        assert known == (True, [one], False, [])
        record = (await lease.fetch([one]))[one.offset]
        assert (record.event.data, record.event.id) == (b'{"mended": true}', "id-0")
        # It dies here; the next one has it still, and buries it again.
        lease = await taken(log, "w2")
        assert [parked.offset for parked in lease.parked] == [one.offset]
        changes = Changes(lease.cursor, lease.cursor + 1, [], [one.offset], [], [])
        await lease.settle(changes, lease.cursor, [letter((await lease.fetch([one]))[one.offset], "gave_up")])
        assert (await lease.fetch([one])) == {}
        *_, (_, again) = await log.dead(P)
        assert (again.id, again.data, again.at) == ("id-0", b'{"mended": true}', letters[0][1].at)


async def test_a_replay_needs_the_entry_no_more_and_holds_no_trimming_back(log_server: str) -> None:
    async with running(log_server, retention=0.0, keep=0) as log:
        letters = await _buried(log)
        await eventually(lambda: _trimmed_to(log, 4))
        await log.groups.replay(P, G, [id for id, _ in letters])
        lease = await taken(log)
        assert [one.event.id for one in (await lease.fetch(lease.parked)).values()] == ["id-0", "id-1", "id-2"]
        await filled(log)
        await lease.settle(done(14), 14)
        await eventually(lambda: _trimmed_to(log, 14))
        assert len(await lease.fetch(lease.parked)) == 3


async def _trimmed_to(log: Log, offset: int) -> bool:
    await log.trim()
    return await log.floor(P) == offset


async def test_replays_stop_where_too_much_waits(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARKED", 2)
    async with running(log_server) as log:
        letters = await _buried(log)
        with pytest.raises(LimitReached):
            await log.groups.replay(P, G, [id for id, _ in letters])
        assert len(await log.dead(P)) == 1
        assert (await log.groups.ask(P, G)).parked == 2


async def test_a_letter_of_another_writer_can_be_replayed(log_server: str) -> None:
    async with running(log_server) as log, at(log_server) as raw:
        await taken(log, ttl=SHORT)
        id = await raw.xadd("{devices.0}:dead", {"group": G, "topic": "a/b"})
        await log.groups.replay(P, G, [id.decode()])
        lease = await taken(log)
        (record,) = (await lease.fetch(lease.parked)).values()
        assert (record.event.topic, record.event.data, record.event.id) == ("a/b", b"", "")


def test_the_bound_on_what_waits_for_a_group_is_the_applications() -> None:
    assert AppLog("devices").unfinished > AppLog("devices").keep
