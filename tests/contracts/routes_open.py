"""A service's routes at an address, raw upstreams, and an edge's door before both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from gateway import Service
from gateway.adapters import http
from gateway.adapters.http_forward import Forward
from gateway.adapters.http_service import Hosted, application
from gateway.adapters.listening import listen
from tests.contracts.http_door_open import HANG, Door, Kept
from tests.gateways import verifier

GROUP = "shop.orders"


@asynccontextmanager
async def opened(app: Starlette, api: Kept) -> AsyncIterator[Door]:
    sock = listen("127.0.0.1", 0)
    server = http.server(app, drain=1.0)
    serving = asyncio.create_task(server.serve([sock]), name="door")
    port = sock.getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG) as client:
            yield Door(api, port, client, asyncio.Event())
    finally:
        server.should_exit = True
        await serving


class Routes:
    """The routes of `shop.orders` in a process of their own."""

    def __init__(self, door: Door, hosted: Hosted, answered: list[int]) -> None:
        self.door, self.hosted, self.answered = door, hosted, answered
        self.http = door.http
        self.url = f"http://127.0.0.1:{door.port}"


@asynccontextmanager
async def served(routes: Sequence[BaseRoute], state: Mapping[str, object] | None = None) -> AsyncIterator[Routes]:
    hosted, answered, api = Hosted(GROUP), list[int](), Kept()
    hosted.open(
        application(Service("orders", routes=routes), GROUP, verifier(), state or {}),
        lambda status, seconds: answered.append(status),
    )
    async with opened(http.health(api, *hosted.routes), api) as door:
        yield Routes(door, hosted, answered)


@asynccontextmanager
async def edge(**services: str) -> AsyncIterator[Door]:
    """An edge's door before ``orders="http://…"``, which is `shop.orders`."""
    api = Kept()
    forward = Forward({f"shop.{name}": url for name, url in services.items()}, api)
    async with opened(http.application(api, *forward.routes), api) as door:
        yield door
    await forward.aclose()


Speaks = Callable[["Upstream", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A server that says what a test wants, and keeps what it heard."""

    def __init__(self, speaks: Speaks) -> None:
        self._speaks = speaks
        self.heard = b""
        self.connections = 0
        self.asked, self.gone = asyncio.Event(), asyncio.Event()
        self.url = ""

    async def head(self, reader: asyncio.StreamReader) -> None:
        self.heard += await reader.readuntil(b"\r\n\r\n")
        self.asked.set()

    async def until_gone(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65_536):
                self.heard += data
        except ConnectionError:
            pass
        self.gone.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._speaks(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.heard.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


@asynccontextmanager
async def upstream(speaks: Speaks) -> AsyncIterator[Upstream]:
    one = Upstream(speaks)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()


def saying(answer: bytes) -> Speaks:
    """Hear a head, say ``answer``, and close."""

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(answer)
        await writer.drain()

    return speaks
