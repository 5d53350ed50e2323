"""Backup and restore of the log by the commands that docs/operating.md has, while clients and a service stay up."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from gateway import App, Context, Service, Topic
from gateway.adapters.child import Server
from gateway.adapters.embedded import free_port
from gateway.adapters.log import AppLog, Log
from gateway.app import declare, services
from gateway.core.event import Partition
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.worker import Worker
from tests.deploy.stage import _found
from tests.gateways import Client, Running, client, running_edge, token
from tests.servers import eventually

OPERATING = Path(__file__).parents[2] / "docs/operating.md"
ROOM = "rooms/1/messages"
TOPICS = (
    Topic(pattern="rooms/{room}/messages", write=("user",), read=("user",), key="{room}"),
    Topic(pattern="rooms/{room}/typing", write=("user",), read=("user",), ephemeral=True, key="{room}"),
)


def commands(name: str) -> str:
    """The commands of the document, as they stand there."""
    found = re.search(rf"(?ms)^```sh {name}\n(.*?)^```", OPERATING.read_text())
    assert found, name
    return found[1]


def run(name: str, **variables: object) -> None:
    env = {"PATH": os.environ["PATH"], **{key: str(value) for key, value in variables.items()}}
    told = subprocess.run(
        ["sh", "-c", commands(name)], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


class Kept:
    """A log server, and how the document's commands reach it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.to = folder / "backup"
        self.cli = f"{_found('redis-cli', 'redis-tools')} -s {server.url.removeprefix('unix://')}"

    def back_up(self, how: str) -> None:
        if how == "files":
            run("backup", CLI=self.cli, DATA=self.server.data, TO=self.to)
        else:
            self.to.mkdir()
            subprocess.run([*self.cli.split(), "--rdb", str(self.to / "dump.rdb")], check=True, capture_output=True)

    def restore(self, how: str) -> None:
        """A disk is lost: the server dies, its files are gone, the backup takes their place."""
        self.server.kill()
        if how == "files":
            run("restore", DATA=self.server.data, FROM=self.to)
        else:
            # The program itself, as it was started.
            program, port = self.server._plan.argv[0], free_port()
            cli = f"{_found('redis-cli', 'redis-tools')} -p {port}"
            run("restore-snapshot", DATA=self.server.data, FROM=self.to, SERVER=program, CLI=cli, PORT=port)
        self.server.start()


@pytest.fixture
def kept(fresh_log_server: Callable[..., Server], tmp_path: Path) -> Kept:
    return Kept(fresh_log_server(), tmp_path)


class Publisher:
    """Says numbers in the room, one after the other, each again until it is acknowledged."""

    def __init__(self, edge: Running) -> None:
        self.edge = edge
        self.sent = 0

    async def say(self, count: int) -> None:
        async with client(self.edge.ws, token("bob")) as bob:
            for _ in range(count):
                reply = await bob.ask("publish", channel=ROOM, data={"n": self.sent})
                assert "publish" in reply, reply
                self.sent += 1


@asynccontextmanager
async def worker(url: str, seen: list[int]) -> AsyncIterator[Worker]:
    """A service that remembers what it was given, in memory that no restore touches."""
    service = Service("archive")

    @service.on("rooms/{room}/messages")
    async def remember(said: dict[str, int], context: Context) -> None:
        seen.append(said["n"])

    apps = [App("rooms", topics=list(TOPICS), services=[service])]
    declared = declare(Settings(), apps)
    services(declared, apps)
    log = await Log.open(url, [AppLog("rooms")])
    one = Worker(log, declared, "rooms.archive", service, lease=2.0, beat=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(one.run(stop), name="worker")
    try:
        yield one
    finally:
        stop.set()
        await running
        await log.close()


async def subscribed(one: Client, back: dict[str, Any] | None = None) -> dict[str, Any]:
    """Subscribe to the room; ``back`` is an earlier answer, or a push, to recover from."""
    position = {"recover": True, "epoch": back["epoch"], "offset": back.get("offset", 0)} if back else {}
    reply = await one.ask("subscribe", channel=ROOM, **position)
    assert "subscribe" in reply, reply
    answer: dict[str, Any] = reply["subscribe"]
    return answer


async def hears_of_another_life(edge: Running, epoch: str) -> bool:
    """Whether somebody new at ``edge`` is given another epoch than ``epoch``."""
    async with client(edge.ws, token()) as somebody:
        reply = await somebody.ask("subscribe", channel=ROOM)
        return "subscribe" in reply and reply["subscribe"]["epoch"] != epoch


async def numbers(log: Log, partition: Partition) -> list[int]:
    records = await log.recent_deliveries(partition, 10_000)
    return [int(re.sub(rb"\D", b"", record.event.data)) for record in records if record.event.topic == ROOM]


def partition(edge: Running) -> Partition:
    return edge.edge.declared.find(ROOM).partition


@pytest.mark.slow
@pytest.mark.parametrize("how", ["files", "snapshot"])
async def test_what_is_lost_is_said_and_nothing_is_skipped(kept: Kept, how: str) -> None:
    url, seen = kept.server.url, list[int]()
    async with running_edge(url, TOPICS) as edge, running_edge(url, TOPICS) as other, worker(url, seen) as archive:
        await eventually(lambda: not archive.unready(), 60)
        bob = Publisher(edge)
        await bob.say(20)
        async with client(edge.ws, token()) as behind:
            old = await subscribed(behind)
        await bob.say(30)
        before = bob.sent

        # The backup is made while it is written to.
        flowing = asyncio.create_task(bob.say(200), name="flowing")
        await eventually(lambda: bob.sent > before)
        await asyncio.to_thread(kept.back_up, how)
        during = bob.sent
        await flowing
        await bob.say(25)
        await eventually(lambda: len(set(seen)) == bob.sent, 60)
        async with client(edge.ws, token()) as ahead:
            newest = await subscribed(ahead)

        await asyncio.to_thread(kept.restore, how)
        await eventually(lambda: not (edge.edge.unready() or other.edge.unready() or archive.unready()), 60)
        # Each edge hears of it from its own tail. Who comes before is as one who was here all the time.
        await eventually(lambda: hears_of_another_life(edge, newest["epoch"]), 60)
        await eventually(lambda: hears_of_another_life(other, newest["epoch"]), 60)
        there = await numbers(edge.log, partition(edge))
        assert there == list(range(len(there)))
        assert before <= len(there) <= during + 1 < bob.sent, "what was acknowledged before it is in the backup"

        for at in (edge, other):
            async with client(at.ws, token()) as behind, client(at.ws, token()) as ahead:
                back = await subscribed(behind, old)
                assert back["recovered"] is True
                assert back["epoch"] != newest["epoch"]
                got = [one["data"]["n"] for one in back["publications"]]
                rest = [one["pub"]["data"]["n"] for one in await behind.until(len(there) - 20 - len(got))]
                assert got + rest == there[20:]
                lost = await subscribed(ahead, newest)
                assert (lost["was_recovering"], lost.get("recovered", False)) == (True, False)

        # And on it goes, for clients and for the service.
        already = len(seen)
        first_new = bob.sent
        async with client(other.ws, token()) as watcher:
            await subscribed(watcher)
            await bob.say(10)
            new = [one["pub"]["data"]["n"] for one in await watcher.until(10)]
            assert new == list(range(first_new, first_new + 10))
        await eventually(lambda: set(range(first_new, first_new + 10)) <= set(seen[already:]), 60)
        again = [n for n in seen[already:] if n < first_new]
        assert again == sorted(again)
        assert set(again) <= set(there), "only what the log has again, and in its order"
        assert set(there) <= set(seen)


@pytest.mark.slow
async def test_a_client_that_stayed_hears_of_it(kept: Kept) -> None:
    url = kept.server.url
    async with running_edge(url, TOPICS) as edge:
        bob = Publisher(edge)
        await bob.say(5)
        async with client(edge.ws, token()) as alice:
            newest = await subscribed(alice)
            await asyncio.to_thread(kept.back_up, "files")
            await bob.say(5)
            await alice.until(5)
            await asyncio.to_thread(kept.restore, "files")
            # It is told to subscribe again, or its connection ends: either way it asks, from where it was.
            await eventually(lambda: alice.close_code or any("pub" not in push for push in alice.pushes), 60)
        await eventually(lambda: hears_of_another_life(edge, newest["epoch"]), 60)
        async with client(edge.ws, token()) as alice:
            again = await subscribed(alice, {"epoch": newest["epoch"], "offset": newest["offset"] + 5})
            assert (again["was_recovering"], again.get("recovered", False)) == (True, False)


async def test_a_backup_that_fails_leaves_the_server_as_it_was(kept: Kept) -> None:
    with redis_client.Redis.from_url(kept.server.url) as server:
        before = server.config_get("auto-aof-rewrite-percentage")
        with pytest.raises(AssertionError):
            run("backup", CLI=kept.cli, DATA=kept.server.data / "nowhere", TO=kept.to)
        assert server.config_get("auto-aof-rewrite-percentage") == before
        kept.back_up("files")
        assert server.config_get("auto-aof-rewrite-percentage") == before
    assert not (kept.server.data / "backing-up").exists()
    assert sorted(path.name for path in kept.to.iterdir()) == ["appendonlydir"]


async def test_without_its_log_nothing_is_accepted(kept: Kept) -> None:
    """While the server is away publishers are refused, so that a restore costs nobody an acknowledged event."""
    async with running_edge(kept.server.url, TOPICS) as edge, client(edge.ws, token("bob")) as bob:
        assert "publish" in await bob.ask("publish", channel=ROOM, data={"n": 0})
        kept.server.kill()
        try:
            reply = await bob.ask("publish", channel=ROOM, data={"n": 1})
        except (ConnectionError, TimeoutError, GatewayError):
            return
        assert reply["error"]["temporary"] is True
