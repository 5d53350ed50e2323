"""The matrix of rights: its cells, and the world in which they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt

from gateway.adapters.embedded import valkey
from gateway.adapters.log import DeadLetter, Log
from gateway.adapters.tokens import Verifier
from gateway.core.declared import Declared, Topic
from gateway.core.event import Draft, Event, Meta
from gateway.edge.process import Edge
from gateway.settings import GatewayTable, KeyTable, Settings, TokensTable
from tests.contracts.rights_oracle import DECLARED, OPENED, TOPICS, Who
from tests.gateways import app_logs

SECRET = b"a key that may vouch for everybody in this test"


def bearer(who: Who, **more: str) -> str:
    kind, name = who
    claims = {"sub": name, "role": kind, "exp": int(time.time()) + 3600, **more}
    token: str = jwt.encode(claims, SECRET, "HS256", {"kid": "all"})
    return "" if kind == "anonymous" else token


def headers(who: Who) -> dict[str, str]:
    return {"authorization": f"Bearer {bearer(who)}"} if who[1] else {}


def verifier(folder: Path) -> Verifier:
    file = folder / "all"
    file.touch(mode=0o600)
    file.write_bytes(SECRET)
    roles: tuple[Any, ...] = ("user", "viewer", "device", "service", "operator")
    key = KeyTable(id="all", algorithm="HS256", file=str(file), roles=roles, opens=OPENED)
    tokens = TokensTable(development=False, keys=(key,))
    return Verifier(Settings(gateway=GatewayTable(data=str(folder)), tokens=tokens))


class Matrix:
    """Every cell that was asked, and those that said something else than the oracle."""

    def __init__(self) -> None:
        self.cells = 0
        self.leaks: list[tuple[str, Any, str]] = []
        self.refusals: list[tuple[str, Any, str]] = []

    def ways(self) -> set[str]:
        """The columns in which something leaked."""
        return {way for way, _, _ in self.leaks}

    def cell(self, way: str, who: Who, topic: str, granted: bool, expected: bool) -> None:
        self.cells += 1
        if granted and not expected:
            self.leaks.append((way, who, topic))
        if expected and not granted:
            self.refusals.append((way, who, topic))


async def seed(log: Log, declared: Declared, word: str) -> None:
    """One event for every topic, past every right, in the order of the list."""
    for topic in TOPICS:
        found = declared.find(topic)
        event = Event(topic, b'"%s"' % word.encode(), f"{word}-{topic}", Meta(producer="seed", via="test"))
        if found.topic.ephemeral:
            await log.publish_live(found.partition, event)
        else:
            await log.append(found.partition, [Draft(event, found.key, retain=found.topic.retain)])


async def some_at_a_time(work: Iterable[Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(16)

    async def one(what: Awaitable[None]) -> None:
        async with gate:
            await what

    await asyncio.gather(*(one(what) for what in work))


def granted(answer: dict[str, Any]) -> bool:
    error = answer.get("error", {"code": 0})["code"]
    assert error in (0, 103, 108, 112), answer
    return bool(error != 103)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[Edge, Log, Declared]]:
    """An edge on a log server of its own, where each topic has one old event and one dead letter."""
    topics = [
        Topic(pattern=p, read=read, write=write, presence=True, **more) for p, (read, write, more) in DECLARED.items()
    ]
    declared = Declared(topics)
    with valkey(folder / "log") as server:
        log = await Log.open(server.url, app_logs(topics))
        edge = Edge(log, declared, verifier(folder), anonymous=True)
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(edge.run("127.0.0.1", 0, stop, ready), name="edge")
        try:
            await ready.wait()
            await seed(log, declared, "old")
            for topic in TOPICS:
                letter = DeadLetter("gave_up", "e", topic, b'"buried"', group="a.b")
                await log.bury(declared.find(topic).partition, letter)
            yield edge, log, declared
        finally:
            stop.set()
            await running
            await log.close()
