"""Gateways for tests: a real edge, and a real bridge, in the test's own loop, and a client that speaks the protocol."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from gateway import limits
from gateway.adapters.log import AppLog, Log
from gateway.adapters.tokens import Verifier, issue
from gateway.core.access import Principal
from gateway.core.declared import Declared, Topic
from gateway.core.rate import UNBOUNDED, Rate
from gateway.edge.process import WEBSOCKET_PATH, Edge
from gateway.settings import Settings, TokensTable

SECRET = secrets.token_bytes(32).hex().encode()

TOPICS = (
    Topic(
        pattern="devices/{device}/telemetry",
        key="{device}",
        write=("device:{device}", "operator"),
        read=("user", "operator"),
        mqtt="in",
    ),
    Topic(
        pattern="devices/{device}/status",
        key="{device}",
        write=("device:{device}", "operator"),
        read=("user", "operator"),
        mqtt="in",
        retain=True,
    ),
    Topic(pattern="rooms/{room}/messages", write=("user", "operator"), read=("user",)),
    Topic(pattern="rooms/{room}/typing", write=("user",), read=("user",), ephemeral=True, key="{room}"),
    Topic(pattern="users/{user}/inbox", write=("operator",), read=("user:{user}",)),
    Topic(pattern="try/#", write=("anyone",), read=("anyone",), payload="bytes", mqtt="in"),
)


def verifier() -> Verifier:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secret"
        file.touch(mode=0o600)
        file.write_bytes(SECRET)
        return Verifier(Settings(tokens=TokensTable(hs256_secret_file=str(file))))


def token(sub: str = "alice", *, kind: str = "user", seconds: int = 3600) -> str:
    return issue(SECRET, Principal(kind, sub), seconds, time.time())


class Running:
    """A running edge: the object itself, for its counters, and its address."""

    def __init__(self, edge: Edge, log: Log, port: int, stop: asyncio.Event) -> None:
        self.edge, self.log, self.port, self.stop = edge, log, port, stop
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}"


def app_logs(topics: Sequence[Topic], **promise: Any) -> list[AppLog]:
    return [AppLog(app, **promise) for app in Declared(topics).apps]


@asynccontextmanager
async def running_edge(
    log_url: str,
    topics: Sequence[Topic] = TOPICS,
    *,
    anonymous: bool = False,
    origins: Sequence[str] = (),
    verify: Verifier | None = None,
    rate: Rate = UNBOUNDED,
    connections_per_user: int = 0,
    partitions: int = limits.PARTITIONS,
) -> AsyncIterator[Running]:
    log = await Log.open(log_url, app_logs(topics), partitions=partitions)
    edge = Edge(
        log,
        Declared(topics, partitions),
        verify or verifier(),
        anonymous=anonymous,
        rate=rate,
        connections_per_user=connections_per_user,
        origins=origins,
    )
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(edge.run("127.0.0.1", 0, stop, ready), name="edge")
    try:
        waiting = asyncio.create_task(ready.wait(), name="ready")
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            running.result()
        yield Running(edge, log, edge.port, stop)
    finally:
        stop.set()
        await running
        await log.close()


class Client:
    """A WebSocket client on the `websockets` library: replies by id, pushes in order, pings answered."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.pushes: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._id = 0
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name="client")

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                for line in str(message).split("\n"):
                    reply = json.loads(line)
                    if not reply:
                        await self.connection.send("{}")
                    elif "push" in reply:
                        self.pushes.append(reply["push"])
                    elif not self._replies[reply["id"]].done():  # or whoever asked waits no more
                        self._replies[reply["id"]].set_result(reply)
                self._changed.set()
        except websockets.ConnectionClosed:
            pass
        self.close_code = self.connection.close_code
        self._changed.set()
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"closed {self.close_code}"))

    async def ask(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Send one command and return its whole reply."""
        self._id += 1
        self._replies[self._id] = asyncio.get_running_loop().create_future()
        await self.connection.send(json.dumps({"id": self._id, method: params}))
        async with asyncio.timeout(30):
            return await self._replies[self._id]

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many pushes and return them all."""
        async with asyncio.timeout(60):
            while len(self.pushes) < count:
                assert self.close_code is None, f"closed {self.close_code}"
                self._changed.clear()
                await self._changed.wait()
        return self.pushes

    async def closed(self) -> int:
        async with asyncio.timeout(20):
            await asyncio.shield(self._reader)
        assert self.close_code is not None
        return self.close_code


@asynccontextmanager
async def client(url: str, jwt: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A connected client; without ``jwt`` only the socket is open and the connect command is the test's."""
    async with websockets.connect(url, compression=None, max_size=None, **options) as connection:
        one = Client(connection)
        if jwt is not None:
            reply = await one.ask("connect", token=jwt)
            assert "connect" in reply, reply
        yield one
        await connection.close()
        await one._reader
