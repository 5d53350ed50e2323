"""The log on a cluster whose slots move and whose nodes die: nothing acknowledged is lost, and nobody else waits."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import limits
from gateway.adapters.log import AppLog, Log, Reply
from gateway.core.declared import Topic
from gateway.core.event import Appended
from gateway.doctor import Patient, examine
from gateway.errors import Unavailable
from tests.clusters import Cluster, Node, cluster
from tests.contracts.log_running import HANG, draft
from tests.faults.log_checker import complaints
from tests.faults.log_load import Load, P, running, story
from tests.gateways import Client, Running, client, running_edge, token
from tests.servers import LOG_SERVERS, eventually

Start = Callable[..., Any]


@pytest.fixture(params=sorted(LOG_SERVERS))
def fresh_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """What starts a cluster of the test's own, to move and to kill: ``fresh_cluster(masters, replicas)``."""

    @contextmanager
    def start(masters: int = 3, replicas: int = 0, extra: tuple[str, ...] = ()) -> Iterator[Cluster]:
        with cluster(request.param, tmp_path, masters, replicas, extra) as found:
            yield found

    return start


def other(found: Cluster, than: Node) -> Node:
    return found.masters[(found.masters.index(than) + 1) % len(found.masters)]


async def moved(found: Cluster, tag: str, *, at_once: bool = False) -> None:
    to = other(found, found.of(tag))
    await asyncio.to_thread(found.move_at_once if at_once else found.move, tag, to)
    assert found.of(tag) is to


async def _moved_thrice(found: Cluster, log: Log, load: Load) -> None:
    load.pour()
    whole = found.masters[0].server.name == "valkey"  # Redis 7.0 moves key by key alone
    for n in range(3):
        have = len(load.acknowledged)
        await eventually(lambda have=have: len(load.acknowledged) > have + 300)
        await moved(found, P, at_once=whole and n == 1)
        await eventually(lambda n=n: log.counters.epoch_changes == n + 2)
    have = len(load.acknowledged)
    await eventually(lambda: len(load.acknowledged) > have + 300)
    await load.settle()


async def test_a_partition_that_moves_under_load_loses_nothing(fresh_cluster: Start) -> None:
    with fresh_cluster() as found:
        async with running(found.url) as log:
            load = Load(log)
            await load.watch()
            await _moved_thrice(found, log, load)
            await eventually(lambda: load.seen and load.seen[-1][1] >= max(load.acknowledged.values()))
            # Each server is another life, so each move begins an epoch; and what a server refused, it did not store.
            assert complaints(await story(log, load, lives=4)) == set()
            assert len(load.acknowledged) == len(load.sent)
            assert load.lost == 0
            await load.end()


async def test_who_does_not_wait_while_a_partition_moves_hears_it(fresh_cluster: Start) -> None:
    with fresh_cluster() as found:
        async with running(found.url) as log:
            load = Load(log, patient=False)
            await _moved_thrice(found, log, load)
            assert complaints(await story(log, load, lives=4)) == set()
            assert {type(error) for error in load.refused} <= {Unavailable} | set(Unavailable.__subclasses__())
            assert all(error.retry_after for error in load.refused)
            await load.end()


async def test_a_master_that_dies_takes_nothing_that_a_replica_confirmed(fresh_cluster: Start) -> None:
    with fresh_cluster(replicas=1, extra=("repl-diskless-sync-delay 0",)) as found:
        async with running(found.url, durability="replica") as log:
            load = Load(log)
            load.pour()
            await eventually(lambda: len(load.acknowledged) > 300)
            dead = found.of(P)
            await asyncio.to_thread(dead.server.kill)
            await eventually(lambda: log.counters.epoch_changes == 2, HANG)
            assert found.of(P) in found.replicas
            acknowledged = len(load.acknowledged)
            # It comes back as the replica of the one that took over: until then nothing more is acknowledged.
            await asyncio.to_thread(dead.server.start)
            await eventually(lambda: len(load.acknowledged) > acknowledged + 300, HANG)
            await load.settle()
            assert complaints(await story(log, load, lives=2, doubles=True)) == set()
            assert len(load.acknowledged) == len(load.sent)
            await load.end()


@asynccontextmanager
async def eight(found: Cluster) -> AsyncIterator[Log]:
    """A log of eight partitions, written."""
    log = await Log.open(found.url, [AppLog("devices", retention=0.1, keep=0)], partitions=8)
    writing = asyncio.create_task(log.run())
    yield log
    writing.cancel()
    await asyncio.wait([writing])
    await log.close()


def of_two(found: Cluster, log: Log) -> tuple[Node, list[str], str]:
    """One node that has not the gateway's own keys, its partitions, and one of another."""
    where = {name: found.of(name) for name in log.partitions()}
    node = next(one for one in where.values() if one is not found.of("gateway"))
    return node, [name for name in where if where[name] is node], next(name for name in where if where[name] != node)


async def appended(log: Log, partition: str, id: str) -> bool:
    (answer,) = await log.append(partition, [draft("devices/1/x", id)])
    assert isinstance(answer, Appended | Unavailable), answer
    return isinstance(answer, Appended)


def hang(node: Node) -> None:
    os.kill(node.server.pid, signal.SIGSTOP)


def go_on(node: Node) -> None:
    os.kill(node.server.pid, signal.SIGCONT)


AWAY = {
    "killed": (lambda node: node.server.kill(), lambda node: node.server.start()),
    "hangs": (hang, go_on),
}


@pytest.mark.parametrize("how", sorted(AWAY))
async def test_while_a_node_is_away_the_others_go_on(fresh_cluster: Start, how: str) -> None:
    leaves, returns = AWAY[how]
    with fresh_cluster() as found:
        async with eight(found) as log:
            node, theirs, here = of_two(found, log)
            there = theirs[0]
            await asyncio.to_thread(leaves, node)
            try:
                for n in range(20):
                    assert await appended(log, here, f"id-{n}")
                assert not await appended(log, there, "id")
                await eventually(lambda: log.away() == len(theirs), HANG)
                assert log.unready() == []  # of the others it is ready
                assert not log.reaches(there)
                assert log.reaches(here)
                await _trimmed(log, here)
                await _opened_meanwhile(found, there, here)
            finally:
                await asyncio.to_thread(returns, node)
            await eventually(lambda: appended(log, there, "id"), HANG)
            await eventually(lambda: log.away() == 0)


async def _trimmed(log: Log, partition: str) -> None:
    """Though what belongs to the other node is not."""
    await asyncio.sleep(0.2)

    async def gone() -> bool:
        with pytest.raises(Unavailable):
            await log.trim()
        return (await log.floor(partition)) > 10

    await eventually(gone, HANG)


async def _opened_meanwhile(found: Cluster, there: str, here: str) -> None:
    """A process that is started then, and the doctor."""
    async with eight(found) as late:
        assert await appended(late, here, "of another process")
        assert not await appended(late, there, "of another process")
        with pytest.raises(Unavailable):
            await late.top(there)
    logs = [AppLog("devices", durability="fast")]
    findings = [one async for one in examine(Patient(found.url, "gateway", 8, logs, {}, {}, ""))]
    bad = {one.checked: one.found for one in findings if one.state == "bad"}
    assert set(bad) == {"log server", "partitions"}
    assert there in bad["partitions"]
    assert here not in bad["partitions"]
    assert "does not answer" in bad["log server"]


ASKED = Topic(pattern="devices/{device}/ask", key="devices/{device}", read=("user",), write=("user",), kind="command")


async def test_replies_of_a_node_that_is_away_hold_up_no_others(fresh_cluster: Start) -> None:
    with fresh_cluster() as found:
        async with running_edge(found.url, [ASKED], partitions=8) as edge:
            node, theirs, _ = of_two(found, edge.log)
            where = {n: edge.edge.declared.find(f"devices/{n}/ask").partition for n in range(40)}
            there = next(n for n, one in where.items() if one in theirs)
            here = next(n for n, one in where.items() if one not in theirs)
            waits = asyncio.create_task(_asked(edge, there))
            await eventually(lambda: len(edge.edge.requests) == 1, HANG)
            await asyncio.to_thread(node.server.kill)
            # Whoever waits looks at what is stored when the announcements are read anew.
            await moved_to_another(found, "gateway", node)
            answer = asyncio.create_task(_asked(edge, here))

            async def told() -> bool:
                for record in await edge.log.recent_deliveries(where[here], 9):
                    await edge.log.replies.send(where[here], record.event.id, Reply(data=b"7"))
                return answer.done()

            await eventually(told, HANG)
            assert (await answer).json() == 7
            waits.cancel()


async def _asked(edge: Running, device: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token()}"}
    async with httpx.AsyncClient(base_url=edge.http, headers=headers, timeout=2 * HANG) as http:
        return await http.post(f"/topics/devices/{device}/ask?wait=25s", json=1)


async def moved_to_another(found: Cluster, tag: str, away: Node) -> None:
    """While ``away`` cannot take part."""
    here = found.of(tag)
    (to,) = (node for node in found.masters if node not in {here, away})
    await asyncio.to_thread(found.move, tag, to)


WATCHED = Topic(pattern="devices/{device}/x", key="devices/{device}", read=("user",), write=("user",))


async def _publish(edge: Running, data: int) -> None:
    """Until it is taken, under one key, as a client does that is told to ask again."""
    headers = {"Authorization": f"Bearer {token()}", "Idempotency-Key": f"number {data}"}
    async with httpx.AsyncClient(base_url=edge.http, headers=headers, timeout=HANG) as http:
        while (answer := await http.post("/topics/devices/1/x", json=data)).is_error:
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)


async def _follow(one: Client, seen: list[int], where: dict[str, Any]) -> None:
    """Take what came; whoever lost its place comes back with where it was."""
    coming, one.pushes[:] = list(one.pushes), []
    for push in coming:
        if "pub" in push:
            seen.append(push["pub"]["data"])
            where["offset"] = push["pub"]["offset"]
        if "unsubscribe" in push:
            while "error" in (reply := await one.ask("subscribe", channel="devices/1/x", recover=True, **where)):
                assert reply["error"]["temporary"], reply
                await asyncio.sleep(0.05)
            found = reply["subscribe"]
            assert found["recovered"], found
            seen += [pub["data"] for pub in found.get("publications", [])]
            where |= {"epoch": found["epoch"], "offset": found["offset"]}


async def test_a_watcher_misses_nothing_while_partitions_move(fresh_cluster: Start) -> None:
    with fresh_cluster() as found:
        async with running_edge(found.url, [WATCHED], partitions=1) as edge, client(edge.ws, token()) as alice:
            begun = (await alice.ask("subscribe", channel="devices/1/x", recover=True))["subscribe"]
            where = {"epoch": begun["epoch"], "offset": begun["offset"]}
            seen: list[int] = []
            for n in range(61):
                await _publish(edge, n)
                if n % 20 == 19:
                    await moved(found, "gateway" if n == 39 else P)

            async def all_seen() -> bool:
                await _follow(alice, seen, where)
                return 60 in seen

            await eventually(all_seen, HANG)
            assert seen == [*range(61)]


PLACES = (
    Topic(pattern="lobby/{room}", write=("user",), read=("user",), presence=True),
    Topic(pattern="lobby/{room}/typing", key="{room}", write=("user",), read=("user",), ephemeral=True),
)


@asynccontextmanager
async def stays(edge: Running, sub: str, *topics: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client that subscribes again where it is told to, as an SDK does, and where it did."""
    returned: list[str] = []
    async with client(edge.ws, token(sub)) as one:

        async def subscribe(topic: str) -> None:
            while "error" in (reply := await one.ask("subscribe", channel=topic, join_leave=topic == "lobby/1")):
                assert reply["error"]["temporary"], reply
                await asyncio.sleep(0.05)

        async def again() -> None:
            seen = 0
            while one.close_code is None:
                await asyncio.sleep(0.02)
                for push in one.pushes[seen:]:
                    seen += 1
                    if "unsubscribe" in push:
                        await subscribe(push["channel"])
                        returned.append(push["channel"])

        for topic in topics:
            await subscribe(topic)
        back = asyncio.create_task(again())
        yield one, returned
        back.cancel()


async def test_who_is_there_is_told_after_a_move(fresh_cluster: Start) -> None:
    with fresh_cluster() as found:
        async with (
            running_edge(found.url, PLACES, partitions=1) as edge,
            stays(edge, "alice", "lobby/1", "lobby/1/typing") as (alice, returned),
        ):
            told = [("join", "alice")]
            for n, sub in enumerate(("bob", "carol")):
                await moved(found, "lobby.0")
                await moved(found, "gateway")
                await eventually(lambda n=n: len(returned) == 2 * (n + 1), HANG)
                async with stays(edge, sub, "lobby/1") as (one, _):
                    told.append(("join", sub))
                    await eventually(lambda: _moves(alice) == told, HANG)
                    await eventually(lambda n=n: _heard_typing(alice, n), HANG)
                    await one.ask("unsubscribe", channel="lobby/1")
                    told.append(("leave", sub))
                    await eventually(lambda: _moves(alice) == told, HANG)
            # A notice to every edge, by the gateway's own keys, which moved too.
            await edge.log.control.revoke("sub", "user:alice", 60, "a test")
            assert await alice.closed()


async def _heard_typing(one: Client, n: int) -> bool:
    """What passes by is not kept: whoever wants it heard says it again."""
    await one.ask("publish", channel="lobby/1/typing", data=n)
    await asyncio.sleep(0.05)
    return any(push["pub"]["data"] == n for push in one.pushes if "pub" in push)


def _moves(one: Client) -> list[tuple[str, str]]:
    return [(what, push[what]["info"]["user"]) for push in one.pushes for what in ("join", "leave") if what in push]


async def test_a_quiet_partition_moves(fresh_cluster: Start) -> None:
    """Its reader waits at the old server, and may have been there for longer than one read."""
    with fresh_cluster() as found:
        async with eight(found) as log:
            partition = log.partitions()[0]
            assert await appended(log, partition, "before")
            tail = log.tail(partition)
            await tail.start(0)
            heard: list[str] = []
            lost = 0

            async def follow() -> None:
                nonlocal lost
                async for batch in tail:
                    heard.extend(record.event.id for record in batch.records)
                    lost += batch.lost

            following = asyncio.create_task(follow())
            for n in range(2):
                await asyncio.sleep(limits.TAIL_BLOCK * 1.2)
                await moved(found, partition)
                await eventually(lambda n=n: appended(log, partition, f"id-{n}"), HANG)
                await eventually(lambda n=n: heard == [f"id-{m}" for m in range(n + 1)], HANG)
            following.cancel()
            assert lost == 0
