"""What waits for clients leaves in order and in one write, and who does not read is given up alone."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette

from gateway import limits
from gateway.adapters import http, websocket
from gateway.adapters.listening import listen
from gateway.core import frame, handshake
from gateway.core.session import SLOW

Run = Callable[[Coroutine[Any, Any, None]], None]

HELLO = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client:
    """Does nothing by itself."""

    subprotocol = None

    def __init__(self, hall: Hall, connection: websocket.Connection) -> None:
        self._hall = hall
        self._connection = connection

    def received(self, text: bytes) -> None: ...
    def received_binary(self, data: bytes) -> None: ...
    def lost(self) -> None: ...

    def too_slow(self) -> None:
        self._hall.slow.append(self._connection)
        self._connection.too_slow()


class Hall:
    """A server whose connections a test writes to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections: list[websocket.Connection] = []
        self.slow: list[websocket.Connection] = []
        self.writers: list[asyncio.StreamWriter] = []

    def welcome(self, connection: websocket.Connection, request: handshake.Request) -> websocket.Client:
        self.connections.append(connection)
        return Client(self, connection)

    async def visit(self, count: int) -> list[asyncio.StreamReader]:
        """Let ``count`` more come in; return where they read, in the order of `connections`."""
        readers = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
            writer.write(HELLO)
            await reader.readuntil(b"\r\n\r\n")
            self.writers.append(writer)
            readers.append(reader)
        # What follows the handshake leaves by the transport; it shows from there on whether it is empty.
        for connection, reader in zip(self.connections, readers, strict=True):
            connection.send(b".")
            await reader.readexactly(1)
        return readers


@asynccontextmanager
async def hall() -> AsyncIterator[Hall]:
    sock = listen("127.0.0.1", 0)
    one = Hall(sock.getsockname()[1])
    server = http.server(Starlette(), websocket.protocol(one.welcome, asyncio.get_running_loop()), drain=1)
    serving = asyncio.create_task(server.serve([sock]), name="hall")
    try:
        yield one
    finally:
        for writer in one.writers:
            writer.close()
        server.should_exit = True
        await serving


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def test_what_is_shared_and_what_is_not_leaves_in_order_and_in_one_write(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: Counter[int] = Counter()
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        writes[fd] += 1
        return write(fd, data)

    async def walk() -> None:
        async with hall() as at:
            one, other = await at.visit(2)
            both = a, b = at.connections
            monkeypatch.setattr(os, "write", counted)
            a.share(list(both), b"1")
            a.share(list(both), b"2")
            b.send(b"3")
            a.share([a], b"4")
            a.share(list(both), b"5")
            assert await one.readexactly(4) == b"1245"
            assert await other.readexactly(4) == b"1235"
            b.send(b"6")
            a.share(list(both), b"7")
            b.share(list(both), b"8")
            assert (await one.readexactly(2), await other.readexactly(3)) == (b"78", b"678")
            assert a.fd is not None
            assert b.fd is not None
            assert (writes[a.fd], writes[b.fd]) == (2, 2)

    run(walk())


def test_what_is_shared_leaves_before_a_goodbye_of_the_same_turn(run: Run) -> None:
    async def walk() -> None:
        async with hall() as at:
            one, other = await at.visit(2)
            a, b = at.connections
            a.share([a, b], b"1")
            b.close(SLOW)
            assert await one.readexactly(1) == b"1"
            assert await other.read() == b"1" + frame.close(SLOW.code, SLOW.reason)

    run(walk())


def test_who_does_not_read_is_given_up_and_the_other_has_everything(run: Run) -> None:
    blocks = [frame.binary(bytes([n % 251]) * (limits.SEND_BYTES // 8)) for n in range(1_000)]

    async def walk() -> None:
        async with hall() as at:
            lazy, keen = await at.visit(2)
            a, b = at.connections
            for block in blocks:
                a.share([a, b], block)
                assert await keen.readexactly(len(block)) == block
                if at.slow:
                    break
            assert at.slow == [a]
            got, goodbye = await lazy.read(), frame.close(SLOW.code, SLOW.reason)
            assert got.endswith(goodbye)
            # Whole frames, in order, from the first one.
            assert got == b"".join(blocks)[: len(got) - len(goodbye)] + goodbye
            assert (len(got) - len(goodbye)) % len(blocks[0]) == 0

    run(walk())


def test_who_reads_is_not_slow_for_what_came_at_once(run: Run) -> None:
    blocks = [frame.binary(bytes([n]) * (limits.SEND_BYTES // 8)) for n in range(12)]

    async def walk() -> None:
        async with hall() as at:
            (reader,) = await at.visit(1)
            (one,) = at.connections
            for block in blocks:
                one.share([one], block)
            assert at.slow == []
            assert await reader.readexactly(sum(map(len, blocks))) == b"".join(blocks)

    run(walk())
