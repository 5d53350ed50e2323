"""An EventSource for tests, and a publisher beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from tests.gateways import Running, token
from tests.servers import eventually

HANG = 20.0
OPERATOR = {"Authorization": f"Bearer {token('root', kind='operator')}"}
USER = {"Authorization": f"Bearer {token('alice')}"}


class Source:
    """What a browser's EventSource does (WHATWG HTML, 9.2), with a header; it comes back at once."""

    def __init__(self, port: int, filter: str, last_id: str = "", headers: dict[str, str] = USER) -> None:
        self.url = f"http://127.0.0.1:{port}/topics/{quote(filter, safe='')}/events"
        self.headers = headers
        self.last_id = last_id
        self.events: list[tuple[str, Any]] = []
        self.connects = 0
        self.comments = 0
        self.clean_ends = 0
        self.refused: httpx.Response | None = None

    async def run(self) -> None:
        """Read until cancelled or refused."""
        async with httpx.AsyncClient(timeout=None) as http:  # noqa: S113  a stream has no end to wait for
            while self.refused is None:
                cursor = {"Last-Event-ID": self.last_id} if self.last_id else {}
                with contextlib.suppress(httpx.TransportError):
                    async with http.stream("GET", self.url, headers=self.headers | cursor) as answer:
                        if answer.status_code >= 500:
                            continue
                        if answer.status_code != 200:
                            await answer.aread()
                            self.refused = answer
                            return
                        self.connects += 1
                        await self._read(answer)
                        self.clean_ends += 1
                await asyncio.sleep(0)

    async def _read(self, answer: httpx.Response) -> None:
        rest = b""
        async for data in answer.aiter_bytes():
            *blocks, rest = (rest + data).split(b"\n\n")
            for block in blocks:
                self.take(block)

    def take(self, block: bytes) -> None:
        name, shown = "message", None
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            match field:
                case b"":
                    self.comments += 1
                case b"id":
                    self.last_id = value.decode()
                case b"event":
                    name = value.decode()
                case b"data":
                    shown = json.loads(value)
        if shown is not None:
            self.events.append((name, shown))

    def data(self, name: str = "message") -> list[Any]:
        return [shown["data"] for kind, shown in self.events if kind == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.events}


@asynccontextmanager
async def source(port: int, filter: str, last_id: str = "", headers: dict[str, str] = USER) -> AsyncIterator[Source]:
    """An EventSource that stands on its filter, until the block ends."""
    one = Source(port, filter, last_id, headers)
    task = asyncio.create_task(one.run(), name="event source")
    try:
        await eventually(lambda: one.refused is not None or (one.connects and one.last_id), within=HANG)
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def publisher(edge: Running) -> AsyncIterator[Callable[..., Any]]:
    async with httpx.AsyncClient(base_url=edge.http, headers=OPERATOR, timeout=HANG) as http:

        async def publish(topic: str, data: object = None, **more: Any) -> dict[str, Any]:
            answer = await http.post(f"/topics/{topic}", **(more or {"json": data}))
            assert answer.status_code == 201, answer.text
            told: dict[str, Any] = answer.json()
            return told

        yield publish
