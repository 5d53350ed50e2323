"""A worker dies between what it did and what it says: whoever asked hears it all the same, and it is done once."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
import redis as redis_client

from gateway.adapters.log import Log
from gateway.core.event import Appended, Draft, Event, Meta
from tests.faults.reply_process import DECLARED, started
from tests.gateways import app_logs
from tests.journeys.shop import TOPICS, Counter, door, working
from tests.servers import eventually


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["commit", "stored"])
async def test_a_worker_killed_before_its_reply(log_server: str, tmp_path: Path, dies: str) -> None:
    database, sink = f"sqlite:///{tmp_path / 'stock.db'}", tmp_path / "sink"
    async with door(log_server) as at, door(log_server) as other:
        first = await started(log_url=log_server, database=database, sink=sink, dies=dies)
        waiting = asyncio.create_task(at.ask("tea", "k", wait="30s"), name="waiting")
        async with asyncio.timeout(60):
            assert await first.wait() == -signal.SIGKILL
        second = await started(log_url=log_server, database=database, sink=sink)
        try:
            answer = await waiting
            assert answer.status_code == 200
            assert answer.json() == {"pid": first.pid}, "what the first one committed"
            assert sink.read_text().split() == [answer.headers["event-id"]]
            again = await other.ask("tea", "k")
            assert (again.status_code, again.content) == (200, answer.content)
            await eventually(lambda: other.waiting == at.waiting == 0)
        finally:
            second.terminate()
            async with asyncio.timeout(60):
                await second.wait()
        for child in (first, second):
            child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["database", "no database"])
async def test_a_worker_killed_before_a_device_has_its_answer(log_server: str, tmp_path: Path, kept: bool) -> None:
    """With a database the answer left with the effect, once; without one it may come twice, under one id."""
    database, sink = f"sqlite:///{tmp_path / 'stock.db'}" if kept else "", tmp_path / "sink"
    log = await Log.open(log_server, app_logs(TOPICS))
    writing = asyncio.create_task(log.run(), name="log")
    try:
        topic, answers = "shop/orders/7/reserve", "shop/answers/pump-7"
        meta = Meta(producer="device:pump-7", via="mqtt", reply_to=answers, correlation=b"\x00")
        place, there = DECLARED.find(topic).partition, DECLARED.find(answers).partition
        first = await started(log_url=log_server, database=database, sink=sink, dies="commit")
        (asked,) = await log.append(place, [Draft(Event(topic, b'{"item":"tea"}', "e-1", meta), topic)], patient=True)
        assert isinstance(asked, Appended)
        async with asyncio.timeout(60):
            assert await first.wait() == -signal.SIGKILL
        second = await started(log_url=log_server, database=database, sink=sink)

        async def finished() -> bool:
            state = await log.groups.ask(place, "shop.stock")
            return state.oldest > asked.position.offset and bool(await log.heads(there, [answers]))

        try:
            await eventually(finished, within=60)

            async def answered() -> bool:
                return any(one.event.topic == answers for one in await log.recent_deliveries(there, 10))

            await eventually(answered, within=60)
        finally:
            second.terminate()
            async with asyncio.timeout(60):
                await second.wait()
        events = [one.event for one in await log.recent_deliveries(there, 10) if one.event.topic == answers]
        ran = sink.read_text().split()
        assert (len(events), len(ran)) == ((1, 1) if kept else (2, 2))
        assert {(event.id, event.meta.correlation, event.meta.cause) for event in events} == {
            (events[0].id, b"\x00", "e-1")
        }
        assert json.loads(events[0].data) == {"pid": first.pid}
        for child in (first, second):
            child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later
    finally:
        writing.cancel()
        await asyncio.wait([writing])
        await log.close()


async def test_every_line_to_the_log_server_is_cut_again_and_again(log_server: str) -> None:
    counter, count = Counter(), 100
    answered: list[int] = []
    with redis_client.Redis.from_url(log_server) as admin:
        async with door(log_server) as one, door(log_server) as two, working(log_server, counter):

            async def ask(n: int) -> None:
                at, other = (one, two) if n % 2 else (two, one)
                while (answer := await at.ask("tea", f"k{n}", n=n, order=str(n % 20), wait="2s")).status_code != 200:
                    assert answer.status_code in (429, 503, 504), answer.text
                    at, other = other, at
                assert answer.json() == {"order": str(n % 20), "n": n}
                answered.append(n)
                if len(answered) % 10 == 0:
                    admin.client_kill_filter(_type="normal", skipme=True)

            async with asyncio.timeout(100):
                await asyncio.gather(*(ask(n) for n in range(count)))
            assert sorted(answered) == list(range(count))
            # At least once without a database; but each key is one event, whoever repeats it.
            assert len(set(counter.ran)) == count


@pytest.mark.slow
async def test_the_checker_sees_what_is_done_twice(log_server: str, tmp_path: Path) -> None:
    """The negative control: a second worker that does not know the first one's database does it again."""
    sink = tmp_path / "sink"
    async with door(log_server) as at:
        first = await started(log_server, f"sqlite:///{tmp_path / 'one.db'}", sink, "commit")
        waiting = asyncio.create_task(at.ask("tea", "k", wait="30s"), name="waiting")
        async with asyncio.timeout(60):
            await first.wait()
        second = await started(log_server, f"sqlite:///{tmp_path / 'another.db'}", sink)
        try:
            answer = await waiting
            assert answer.json() == {"pid": second.pid}
            assert len(sink.read_text().split()) == 2
        finally:
            second.terminate()
            async with asyncio.timeout(60):
                await second.wait()
        for child in (first, second):
            child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later
