"""A running HTTP door before an Api that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.adapters import http
from gateway.adapters.listening import listen
from gateway.core.event import Appended, Position, Publication
from gateway.errors import GatewayError

HANG = 20.0


class Kept:
    """An Api that accepts everything, remembers it, and fails when told to."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.waits: list[float] = []
        #: What a request is answered; None: nothing, for ever.
        self.reply: bytes | None = b'{"a": 1}'
        self.watched: list[tuple[str, str, str]] = []
        self.reasons: list[str] = []
        self.refusals: list[GatewayError] = []
        self.fails: BaseException | None = None
        self.ended = asyncio.Event()

    async def publish(self, token: str, asked: Publication) -> tuple[Appended, str]:
        if self.fails is not None:
            raise self.fails
        self.published.append(asked)
        return Appended(Position(17, len(self.published)), asked.id or "new"), "disk"

    async def request(self, token: str, asked: Publication, within: float) -> tuple[str, bytes]:
        await self.publish(token, asked)
        self.waits.append(within)
        if self.reply is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()
        return "new", self.reply or b""

    async def watch(self, token: str, filter: str, cursor: str) -> AsyncIterator[bytes]:
        self.watched.append((token, filter, cursor))
        return self._endless()

    async def watch_by_ticket(self, ticket: str, filter: str, cursor: str) -> AsyncIterator[bytes]:
        return await self.watch(ticket, filter, cursor)

    def admit_forwarded(self, token: str) -> None:
        """Everybody may reach a service."""

    async def _endless(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: 1\n\n"
                await asyncio.sleep(0.01)
        finally:
            self.ended.set()

    def refused(self, error: GatewayError) -> None:
        self.refusals.append(error)

    def allows(self, origin: str | None, host: str | None) -> bool:
        return origin is None

    def unready(self) -> list[str]:
        return self.reasons

    def metrics(self) -> tuple[bytes, str]:
        return b"# none\n", "text/plain; version=0.0.4"


class Door:
    """A running door, its Api, and an HTTP client that goes through it."""

    def __init__(self, api: Kept, port: int, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        self.api, self.port, self.http, self.stop = api, port, client, stop

    async def raw(self, data: bytes, until: bytes = b"}") -> bytes:
        """What is said to these bytes, up to the end of a body or of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        said = b""
        try:
            writer.write(data)
            async with asyncio.timeout(HANG):
                while until not in said and (more := await reader.read(65_536)):
                    said += more
        finally:
            writer.transport.abort()
        return said


@asynccontextmanager
async def opened() -> AsyncIterator[Door]:
    api, sock, stop = Kept(), listen("127.0.0.1", 0), asyncio.Event()
    port = sock.getsockname()[1]
    server = http.server(http.application(api), drain=1.0)
    serving = asyncio.create_task(server.serve([sock]), name="door")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG) as client:
            yield Door(api, port, client, stop)
    finally:
        server.should_exit = True
        await serving


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert (told["type"], told["status"]) == (f"urn:topic-gateway:{code}", status)
    assert told["title"]
    assert told["detail"]
    return told
