"""A small TCP proxy of ours: forwards to a server that may change, swallows replies, cuts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Stands at `url`; `to` is where new connections go, and may be changed at any time."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.url = ""
        self.port = 0
        #: Requests still pass, replies are thrown away.
        self.swallow = False
        #: Requests are thrown away.
        self.deaf = False
        #: Bytes that were thrown away.
        self.swallowed = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        ends = [writer]
        try:
            there = urlsplit(self.to)
            if there.scheme == "unix":
                up, down = await asyncio.open_unix_connection(there.path)
            else:
                up, down = await asyncio.open_connection(there.hostname, there.port)
            ends.append(down)
            self._open.update(ends)
            await asyncio.wait(
                [
                    asyncio.create_task(self._copy(reader, down, replies=False)),
                    asyncio.create_task(self._copy(up, writer, replies=True)),
                ],
                return_when=asyncio.ALL_COMPLETED,
            )
        except OSError:
            pass  # nobody there: the client sees its connection end
        finally:
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if self.swallow if replies else self.deaf:
                    self.swallowed += len(data)
                    continue
                to.write(data)
                await to.drain()
        to.transport.abort()

    async def finish(self) -> None:
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def proxy(to: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1 to the stream server at ``to`` (``redis://`` or ``unix://``)."""
    it = Proxy(to)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    it.url = f"redis://127.0.0.1:{it.port}/0"
    try:
        yield it
    finally:
        server.close()
        await it.finish()
        await server.wait_closed()
