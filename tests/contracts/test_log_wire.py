"""One connection to the log server: how long it is waited for, asked of a server that sends as slowly as we like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.log.resp import Lost, Wire, pack
from tests.servers import eventually

#: An answer of many small parts, as megabytes come to a loop that is busy.
PARTS = [b"$10\r\n", *(b"%d" % n for n in range(10)), b"\r\n"]


@asynccontextmanager
async def answering(parts: list[bytes], go_on: asyncio.Event, sent: list[bytes]) -> AsyncIterator[Wire]:
    """A wire to a server that sends the next of ``parts`` at each ``go_on``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.readline()
        for part in parts:
            await go_on.wait()
            go_on.clear()
            writer.write(part)
            sent.append(part)
        await gone.wait()
        writer.close()
        await writer.wait_closed()

    serving, gone = list[asyncio.Task[None] | None](), asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, wire = await asyncio.get_running_loop().create_connection(Wire, *server.sockets[0].getsockname())
        try:
            yield wire
        finally:
            wire.abort()
            await wire.closed
            gone.set()
            while any(task and not task.done() for task in serving):
                go_on.set()
                await asyncio.sleep(0)


async def test_a_long_answer_is_waited_for_while_it_comes() -> None:
    go_on, sent = asyncio.Event(), list[bytes]()
    async with answering(PARTS, go_on, sent) as wire:
        within = 1.0
        asked = asyncio.create_task(wire.call(pack("GET", "x"), within=within), name="asked")
        began = asyncio.get_running_loop().time()
        while not asked.done():
            # Twice the patience in all, and never as much between two parts.
            await asyncio.sleep(2 * within / len(PARTS))
            go_on.set()
        assert asked.result() == [b"0123456789"]
        assert asyncio.get_running_loop().time() - began > within, "or it shows nothing"


async def test_a_silent_server_is_given_up() -> None:
    go_on, sent = asyncio.Event(), list[bytes]()
    async with answering(PARTS, go_on, sent) as wire:
        asked = asyncio.create_task(wire.call(pack("GET", "x"), within=0.3), name="asked")
        go_on.set()
        await eventually(lambda: sent)
        with pytest.raises(Lost, match="did not answer"):
            await asked
        assert not wire.open, "what comes later would be taken for another answer"


async def test_whoever_stopped_waiting_leaves_the_connection_to_others() -> None:
    go_on, sent = asyncio.Event(), list[bytes]()
    async with answering([b"$1\r\na\r\n", b"$1\r\nb\r\n"], go_on, sent) as wire:
        first = asyncio.create_task(wire.call(pack("GET", "a"), within=0.1), name="first")
        second = asyncio.create_task(wire.call(pack("GET", "b"), within=20.0), name="second")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        for _ in range(2):
            go_on.set()
            await eventually(lambda: not go_on.is_set())
        assert await second == [b"b"]
