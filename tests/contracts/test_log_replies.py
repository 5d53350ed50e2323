"""Replies in the log: kept for a repeat, announced to every edge, whatever happens to the connection between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis as redis_client

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.log import Announcements, News, Reply, Request
from gateway.errors import Unavailable
from tests.contracts.log_running import HANG, P, running
from tests.servers import eventually

DONE = Reply(data=b'{"n":1}')
GIVEN_UP = Reply("gave_up", "ValueError: a\nb")


async def following(tail: Announcements) -> News:
    return await asyncio.wait_for(anext(tail), HANG)


async def test_the_first_reply_stays(log_server: str) -> None:
    async with running(log_server) as log:
        assert await log.replies.stored(P, "1") is None
        for said in (DONE, Reply(data=b"2"), GIVEN_UP):
            await log.replies.send(P, "1", said)
            assert await log.replies.stored(P, "1") == DONE


async def test_what_was_given_up_and_is_done_in_the_end_is_done(log_server: str) -> None:
    async with running(log_server) as log:
        for said, stays in ((GIVEN_UP, GIVEN_UP), (Reply("rejected", "no"), GIVEN_UP), (DONE, DONE), (GIVEN_UP, DONE)):
            await log.replies.send(P, "{x}:1 ü", said)
            assert await log.replies.stored(P, "{x}:1 ü") == stays


async def test_replies_are_one_event_s_of_one_partition(log_server: str) -> None:
    async with running(log_server, partitions=2) as log:
        await log.replies.send("devices.0", "1", DONE)
        found = await log.replies.stored_many([("devices.0", "1"), ("devices.1", "1"), ("devices.0", "2")])
        assert found == [DONE, None, None]
        assert await log.replies.stored_many([]) == []


@pytest.mark.parametrize(("retention", "kept"), [(3_600.0, 3_600.0), (1.0, limits.REPLY_KEPT)])
async def test_they_are_kept_as_long_as_the_log_keeps_events(log_server: str, retention: float, kept: float) -> None:
    async with running(log_server, retention=retention) as log:
        await log.replies.send(P, "1", DONE)
        with redis_client.Redis.from_url(log_server) as admin:
            assert 0.9 * kept * 1000 < admin.pttl(f"{{{P}}}:reply:1") <= kept * 1000


async def test_the_error_of_a_reply_is_bounded(log_server: str) -> None:
    async with running(log_server) as log:
        await log.replies.send(P, "1", Reply("schema", "ü" * 10_000 + "\ud800"))
        assert await log.replies.stored(P, "1") == Reply("schema", "ü" * limits.REPLY_ERROR)


async def test_every_edge_hears_of_every_reply(log_server: str) -> None:
    async with running(log_server) as log, running(log_server) as other:
        await log.replies.send(P, "before", DONE)
        tails = log.replies.tail(), other.replies.tail()
        for tail in tails:
            assert await following(tail) == News([], lost=True)
        for id in ("1", "2"):
            await log.replies.send(P, id, DONE)
        for tail in tails:
            heard: list[Request] = []
            while len(heard) < 2:
                news = await following(tail)
                assert not news.lost
                heard += news.requests
            assert heard == [(P, "1"), (P, "2")]


async def test_who_was_away_too_long_sees_the_hole(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLIES_ANNOUNCED", 10)
    async with running(log_server) as log:
        tail = log.replies.tail()
        await following(tail)
        await log.replies.send(P, "1", DONE)
        assert (await following(tail)).requests == [(P, "1")]
        for n in range(500):
            await log.replies.send(P, f"more-{n}", DONE)
        news = await following(tail)
        assert news.lost
        with redis_client.Redis.from_url(log_server) as admin:
            assert admin.xlen("{gateway}:replies") < 300


async def test_a_cut_line_is_news_that_something_may_be_lost(log_server: str) -> None:
    async with running(log_server) as log:
        tail = log.replies.tail()
        await following(tail)
        waiting = asyncio.create_task(following(tail), name="waiting")
        with redis_client.Redis.from_url(log_server) as admin:

            def reading() -> list[str]:
                return [one["id"] for one in admin.client_list() if one["cmd"] == "xread"]

            await eventually(reading)
            admin.client_kill_filter(_id=reading()[0])
        assert await waiting == News([], lost=True)
        await log.replies.send(P, "2", DONE)
        assert (await following(tail)).requests == [(P, "2")]


async def test_a_server_that_forgot_everything(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAIL_BLOCK", 0.05)
    async with running(log_server) as log:
        tail = log.replies.tail()
        for id in ("1", "2"):
            await log.replies.send(P, id, DONE)
        await following(tail)
        with redis_client.Redis.from_url(log_server) as admin:
            admin.delete("{gateway}:replies")
        assert await following(tail) == News([], lost=True)
        await log.replies.send(P, "3", DONE)
        assert (await following(tail)).requests == [(P, "3")]


async def test_a_full_server_takes_replies_because_they_make_room(log_server: str) -> None:
    with redis_client.Redis.from_url(log_server) as admin:
        async with running(log_server) as log:
            try:
                admin.config_set("maxmemory", "1")
                await log.replies.send(P, "1", DONE)
            finally:
                admin.config_set("maxmemory", "0")
            assert await log.replies.stored(P, "1") == DONE


async def test_a_server_that_is_away(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    async with running(server.url) as log:
        tail = log.replies.tail()
        await following(tail)
        server.kill()
        await eventually(lambda: log.state == "down")
        for asked in (log.replies.send(P, "1", DONE), log.replies.stored(P, "1")):
            with pytest.raises(Unavailable):
                await asked
        server.start()
        assert await following(tail) == News([], lost=True)
        await tail.close()
        assert [news async for news in tail] == []
