"""The lease of a broker and the fence of its appends: one bridge at a time, by the log server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis as redis_client

from gateway.adapters.log import AppLog, Log
from gateway.core.event import Appended, Draft, Event
from gateway.errors import Fenced
from tests.servers import eventually

LONG = 60.0


@pytest.fixture
async def log(log_server: str) -> AsyncIterator[Log]:
    one = await Log.open(log_server, [AppLog("devices")])
    running = asyncio.create_task(one.run(), name="log")
    yield one
    running.cancel()
    await asyncio.wait([running])
    await one.close()


def draft(n: int) -> Draft:
    return Draft(Event("devices/1/x", b"%d" % n, f"e{n}"), "1")


async def test_one_of_two_has_it_and_says_who(log: Log) -> None:
    first, second = log.bridge_lease("b", "one", LONG), log.bridge_lease("b", "two", LONG)
    assert await first.take() == ""
    assert await second.take() == "one"
    assert await first.take() == ""  # asked again: the reply may have been lost
    await first.renew()
    with pytest.raises(Fenced, match="another bridge"):
        await second.renew()
    await second.release()  # nothing of its own
    assert await second.take() == "one"
    await first.release()
    assert await second.take() == ""
    assert second.term > first.term
    with pytest.raises(Fenced):
        await first.renew()
    other = log.bridge_lease("another", "three", LONG)
    assert await other.take() == ""


async def test_an_expired_one_is_its_holders_until_another_takes_it(log: Log) -> None:
    first, second = log.bridge_lease("b", "one", 0.05), log.bridge_lease("b", "two", LONG)
    assert await first.take() == ""
    await asyncio.sleep(0.1)  # by the server's clock
    await first.renew()

    async def taken() -> bool:
        return await second.take() == ""

    await eventually(taken)
    with pytest.raises(Fenced):
        await first.renew()


async def test_a_clock_that_was_set_back_holds_nobody_up(log: Log, log_server: str) -> None:
    first, second = log.bridge_lease("b", "one", 1.0), log.bridge_lease("b", "two", 1.0)
    assert await first.take() == ""
    with redis_client.Redis.from_url(log_server) as admin:
        until = int(admin.hget("{gateway}:bridge:b", "until"))
        admin.hset("{gateway}:bridge:b", "until", str(until + 3_600_000))
    assert await second.take() == ""


async def test_a_server_that_lost_its_data_gives_no_term_twice(log: Log, log_server: str) -> None:
    lease = log.bridge_lease("b", "one", LONG)
    await lease.take()
    with redis_client.Redis.from_url(log_server) as admin:
        admin.delete("{gateway}:bridge:b")
    with pytest.raises(Fenced):
        await lease.renew()
    await asyncio.sleep(0.002)
    again = log.bridge_lease("b", "one", LONG)
    await again.take()
    assert again.term > lease.term


async def test_appends_of_an_earlier_term_are_refused(log: Log, log_server: str) -> None:
    later = await Log.open(log_server, [AppLog("devices")])
    running = asyncio.create_task(later.run(), name="later")
    await log.fence(["devices.1"], "b", 1)
    assert isinstance((await log.append("devices.1", [draft(1)]))[0], Appended)
    await later.fence(["devices.1"], "b", 2)
    answers = await log.append("devices.1", [draft(2), draft(3)], patient=True)
    assert [type(answer) for answer in answers] == [Fenced, Fenced]
    assert isinstance((await later.append("devices.1", [draft(4)]))[0], Appended)
    with pytest.raises(Fenced):
        await log.fence(["devices.1"], "b", 1)
    assert isinstance((await log.append("devices.2", [draft(5)]))[0], Appended)  # not fenced: not its partition
    assert [r.event.id for r in await log.recent_deliveries("devices.1", 10)] == ["e1", "e4"]
    running.cancel()
    await asyncio.wait([running])
    await later.close()
