"""A worker dies between what it did and what it says: whoever asked hears it all the same, and it is done once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
import redis as redis_client

from tests.faults.reply_process import started
from tests.journeys.shop import Counter, door, working
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
