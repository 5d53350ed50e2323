"""What may be read of the log: chains, tails, what trimming leaves; asked of Redis and of Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as client

from gateway.adapters.log.entry import checked
from gateway.core.event import Appended, Event, Meta, Position, Record
from gateway.doctor import _COPY as COPY
from gateway.errors import Unavailable
from tests.contracts.log_running import HANG, P, draft, following, offsets, running
from tests.servers import eventually

META = Meta(
    ts=1_700_000_000_123,
    type="image/png",
    producer="device:7",
    via="mqtt",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    cause="id-0",
    headers={"unit": "°C"},
    reply_to="reply.edge-1",
    correlation=b"\x00\xff",
    delivery=("session", 3),
)


# --- the chain of a key ---------------------------------------------------------------------------------------------


async def test_a_walk_brings_one_keys_events_after_a_position_in_order(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft(f"devices/{i % 3}/{i}", str(i), key=f"devices/{i % 3}") for i in range(12)])
        epoch = (await log.epochs(P)).current
        walk = await log.walk(P, "devices/1", Position(epoch, 3), 10)
        assert [r.event.id for r in walk.records] == ["4", "7", "10"]
        assert (walk.complete, walk.reason, walk.top) == (True, "", Position(epoch, 13))
        assert await log.heads(P, ["devices/1", "devices/9"]) == [12, None]


async def test_a_quiet_key_is_complete_with_the_partitions_top(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft("devices/1/x", "a"), draft("devices/2/x", "b"), draft("devices/2/x", "c")])
        epoch = (await log.epochs(P)).current
        for key in ("devices/1/x", "devices/never"):
            walk = await log.walk(P, key, Position(epoch, 2), 10)
            assert (walk.records, walk.complete, walk.top) == ([], True, Position(epoch, 4))


async def test_a_walk_says_why_it_is_not_complete(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft("devices/1/x", str(i)) for i in range(10)])
        epoch = (await log.epochs(P)).current
        short = await log.walk(P, "devices/1/x", Position(epoch, 1), 3)
        assert ([r.event.id for r in short.records], short.reason) == (["7", "8", "9"], "too_many")
        for stranger in (Position(epoch - 1, 3), Position(epoch, 12), Position(7, 0)):
            assert (await log.walk(P, "devices/1/x", stranger, 10)).reason == "epoch"
        history = await log.walk(P, "devices/1/x", Position(0, 0), 100)
        assert len(history.records) == 10
        assert history.complete


# --- trimming -------------------------------------------------------------------------------------------------------


async def test_trimming_takes_heads_and_keys_with_their_entries_and_no_others(log_server: str) -> None:
    async with running(log_server, retention=0.2, keep=4) as log, client.Redis.from_url(log_server) as raw:
        old = [draft(f"devices/{i}/x", str(i), b"1", idempotency=f"u/{i}", retain=True) for i in range(10)]
        await log.append(P, [*old, draft("devices/0/x", "again")])

        async def trimmed() -> bool:
            await log.trim()
            return bool(await raw.xlen("{devices.0}") <= 4)

        await eventually(trimmed)
        epoch = (await log.epochs(P)).current
        kept = (await log.read(P, Position(epoch, 8), 10)).records
        assert [r.event.id for r in kept] == ["7", "8", "9", "again"]
        heads = await log.heads(P, [f"devices/{i}/x" for i in range(10)])
        assert heads == [12, *[None] * 6, 9, 10, 11]
        assert await raw.hlen("{devices.0}:idem") == 3
        assert len(await log.last(P, None, 100)) == 10  # a last value outlives its entry
        # A key that lost its head, and one whose chain leads below what is kept: nobody may call that complete.
        assert (await log.walk(P, "devices/3/x", Position(epoch, 4), 10)).reason == "trimmed"
        assert (await log.walk(P, "devices/0/x", Position(epoch, 1), 10)).reason == "trimmed"
        assert (await log.walk(P, "devices/3/x", Position(epoch, 8), 10)).complete
        after_the_cut = await log.read(P, Position(epoch, 3), 10)
        assert (after_the_cut.lost, after_the_cut.floor) == (True, 8)
        assert await log.top(P) == after_the_cut.position
        # The key came, went with its entry, and comes anew.
        (answer,) = await log.append(P, [draft("devices/1/x", "new", b"other", idempotency="u/1")])
        assert answer == Appended(Position(epoch, 13), "new")


async def test_nothing_is_trimmed_before_its_time_nor_below_what_is_kept(log_server: str) -> None:
    async with running(log_server, retention=1_000, keep=0) as young:
        await young.append(P, [draft("devices/0/x", str(i)) for i in range(10)])
        assert await young.trim() == 0
    async with running(log_server, retention=0.0, keep=100) as few:
        assert await few.trim() == 0


async def test_only_one_process_trims_a_partition(log_server: str) -> None:
    async with running(log_server, retention=0.01, keep=0) as one, running(log_server, retention=0.01, keep=0) as two:
        await one.append(P, [draft("devices/0/x", str(i)) for i in range(10)])
        trimmed = [0, 0]

        async def all_gone() -> bool:
            trimmed[0] += await one.trim()
            trimmed[1] += await two.trim()
            return sum(trimmed) + one.counters.trimmed + two.counters.trimmed >= 11

        await eventually(all_gone)
        assert 0 in (one.counters.trimmed, two.counters.trimmed)


async def test_an_emptied_log_goes_on_where_it_was(log_server: str) -> None:
    async with running(log_server, retention=0.01, keep=0) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(10)])

        async def empty() -> bool:
            await log.trim()
            return await raw.xlen("{devices.0}") == 0

        await eventually(empty)
        assert offsets(await log.append(P, [draft("devices/0/x", "next")])) == [12]


# --- the tail -------------------------------------------------------------------------------------------------------


async def test_a_tail_starts_with_the_newest_and_misses_nothing_after(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(600)])
        tail = log.tail(P)
        assert [int(r.event.id) for r in await tail.start(500)] == list(range(100, 600))
        assert tail.position.offset == 601
        more = [draft("devices/0/x", str(i)) for i in range(600, 1200)]
        await log.append(P, more)
        seen: list[str] = []
        while len(seen) < 600:
            batch = await following(tail)
            assert not batch.lost
            seen += [r.event.id for r in batch.records]
        assert seen == [d.event.id for d in more]
        assert tail.position.offset == 1201


async def test_what_is_not_kept_reaches_the_tails_of_the_moment(log_server: str) -> None:
    async with running(log_server) as log:
        await log.publish_live(P, Event("devices/1/typing", b"0", "before"))
        tail = log.tail(P)
        assert await tail.start(10) == []
        at = tail.position
        await log.publish_live(P, Event("devices/1/typing", b"\x001", "l-1", META))
        batch = await following(tail)
        assert batch.live == [Event("devices/1/typing", b"\x001", "l-1", META)]
        assert tail.position == at


async def test_a_tail_overtaken_by_trimming_says_so(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        tail = log.tail(P)
        await tail.start(10)
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(10)])
        await raw.xtrim("{devices.0}", maxlen=3, approximate=False)
        batch = await following(tail)
        assert batch.lost
        assert [r.event.id for r in batch.records] == ["7", "8", "9"]
        await log.append(P, [draft("devices/0/x", "10")])
        assert not (await following(tail)).lost


async def test_a_tail_of_a_log_that_was_wiped_hears_it_and_goes_on(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(5)])
        before = Position((await log.epochs(P)).current, 6)
        tail = log.tail(P)
        await tail.start(10)
        await raw.flushall()
        answer = await log.append(P, [draft("devices/0/x", "after")])
        batch = await following(tail)
        while not batch.records:
            assert batch.lost
            batch = await following(tail)
        assert [r.event.id for r in batch.records] == ["after"]
        assert offsets(answer) == [2]
        assert not (await log.epochs(P)).continuous(before)


async def test_a_tail_ahead_of_its_server_does_not_wait_for_ever(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(5)])
        tail = log.tail(P)
        await tail.start(10)
        # As after a restore from a backup on a machine whose clock is behind: no later id is ever above ours.
        tail.position = tail._at = Position(tail.position.epoch + 10**9, 500)
        batch = await following(tail)
        assert batch.lost
        assert batch.opened == await log.epochs(P)
        await log.append(P, [draft("devices/0/x", "after")])
        assert [r.event.id for r in (await following(tail)).records] == ["after"]


async def test_a_log_deleted_alone_keeps_counting(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", str(i)) for i in range(5)])
        await log.trim()  # writes a mark, from which the top is known
        await raw.delete("{devices.0}")
        assert offsets(await log.append(P, [draft("devices/0/x", "after")]))[0] > 2
        assert len((await log.epochs(P)).first) == 2


# --- entries that must not be delivered -----------------------------------------------------------------------------


async def test_a_flipped_bit_and_a_foreign_entry_are_never_delivered(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        tail = log.tail(P)
        await tail.start(10)
        epoch = (await log.epochs(P)).current
        fields: dict[Any, Any] = {"topic": "devices/0/x", "id": "a", "data": b"good", "prev": 0}
        meta = checked(Meta(), b"devices/0/x", b"a", b"good")
        for name, wrong in (("data", b"gooe"), ("topic", "devices/0/y"), ("id", "b")):
            await raw.xadd("{devices.0}", {**fields, name: wrong, "meta": meta}, id=f"{epoch}-*")
        await raw.xadd("{devices.0}", {**fields, "meta": meta[:-2]}, id=f"{epoch}-*")
        await raw.xadd("{devices.0}", {**fields, "meta": b"\xc1"}, id=f"{epoch}-*")
        await raw.xadd("{devices.0}", {"hello": "world"}, id=f"{epoch}-*")
        await raw.xadd("{devices.0}", {**fields, "meta": meta}, id=f"{epoch}-*")
        seen: list[Record] = []
        while not seen:
            batch = await following(tail)
            assert not batch.lost
            seen += batch.records
        assert [(r.event.data, r.offset) for r in seen] == [(b"good", 8)]
        assert log.counters.corrupt == 6
        page = await log.read(P, Position(0, 0), 100)
        assert len(page.records) == 1
        assert page.lost  # whoever catches up is told that he does not get all


async def test_a_foreign_entry_above_ours_stops_appending_with_a_reason(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await raw.xadd("{devices.0}", {"hello": "world"}, id="99999999999999-0")
        (answer,) = await log.append(P, [draft("devices/0/x", "a")])
        assert isinstance(answer, Unavailable)
        assert "doctor" in str(answer)


@pytest.mark.parametrize(
    "above", [f"{2**64 - 1}-{2**64 - 1}", "{epoch}-18446744073709551615", f"99999999999999-{2**40}"]
)
async def test_a_foreign_entry_above_ours_moves_no_reader(log_server: str, above: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", "a")])
        epoch = (await log.epochs(P)).current
        before, late = log.tail(P), log.tail(P)
        await before.start(10)
        await raw.xadd("{devices.0}", {"hello": "world"}, id=above.replace("{epoch}", str(epoch)))
        newest = await late.start(10)
        assert ([record.event.id for record in newest], late.position) == (["a"], Position(epoch, 2))
        passing = asyncio.create_task(anext(before))
        await eventually(lambda: log.counters.corrupt == 2)
        assert before.position == Position(epoch, 2)
        walk = await log.walk(P, "devices/0/x", Position(epoch, 1), 10)
        assert ([record.offset for record in walk.records], walk.top, walk.complete) == ([2], Position(epoch, 2), True)
        for start in ("latest", "earliest"):
            lease = await log.groups.take(P, f"g.{start}", "w", start, 30)
            assert lease is not None
            assert lease.cursor == {"latest": 2, "earliest": 0}[start]
        assert await log.groups.seek(P, "g.latest", "latest", void=True) == 2
        # As the doctor tells it: what is ours goes on, and no reader missed any of it.
        await raw.eval(COPY, 1, "{devices.0}", f"{epoch}-2")
        await log.append(P, [draft("devices/0/x", "b")])
        for tail in (passing, asyncio.create_task(anext(late))):
            batch = await asyncio.wait_for(tail, HANG)
            assert ([record.offset for record in batch.records], batch.lost) == ([3], False)
        await before.close()
        await late.close()


async def test_no_append_goes_above_a_foreign_entry_of_our_epoch(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", "a")])
        epoch = (await log.epochs(P)).current
        await raw.xadd("{devices.0}", {"hello": "world"}, id=f"{epoch}-{2**52 + 1}")
        (answer,) = await log.append(P, [draft("devices/0/x", "b")])
        assert "gateway doctor" in str(answer)
        # Another life of the server goes on after the last of ours.
        await raw.hset("{devices.0}:epochs", "replid", "another")
        assert offsets(await log.append(P, [draft("devices/0/x", "c")])) == [4]
