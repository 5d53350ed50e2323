"""The world of a journey: a stream server, an edge that can be restarted, and a line to it that can be cut or held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gateway.adapters.child import Server
from gateway.adapters.log import Log
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.core.event import Appended, Publication
from gateway.edge.process import WEBSOCKET_PATH, Edge
from tests.gateways import TOPICS, app_logs, verifier

ROOT = Principal("operator", "root")

#: Publishes under way at once, below the bound of one partition's queue.
_AT_ONCE = 2_000


class Line:
    """A TCP relay to 127.0.0.1: cut it (both ends are reset), or hold it (nothing reaches the client, nor is lost)."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        #: Connections so far.
        self.calls = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._back_flows = asyncio.Event()
        self._back_flows.set()

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}{WEBSOCKET_PATH}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.release()
        self.cut()
        await asyncio.gather(*self._serving)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        self._back_flows.clear()

    def release(self) -> None:
        self._back_flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.calls += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target, limit=4096)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back, held=False), name="line there")
                both.create_task(self._pump(there, writer, held=True), name="line back")
        finally:
            self._writers -= {writer, back}
            self._serving.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        try:
            while data := await reader.read(4096):
                if held:
                    await self._back_flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class World:
    """One log server, one edge at a time, and the line that SDKs connect by."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.declared = Declared(TOPICS)
        self.line = Line()
        self.edge: Edge
        self.log: Log
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start_edge(self, port: int = 0) -> None:
        self.log = await Log.open(self.server.url, app_logs(TOPICS))
        self.edge = Edge(self.log, Declared(TOPICS), verifier())
        self._stop, ready = asyncio.Event(), asyncio.Event()
        self._running = asyncio.create_task(self.edge.run("127.0.0.1", port, self._stop, ready), name="edge")
        waiting = asyncio.create_task(ready.wait(), name="ready")
        await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._running.done():
            self._running.result()
        self.line.target = self.edge.port

    async def stop_edge(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            self._stop.set()
            await running
            await self.log.close()

    @property
    def direct(self) -> str:
        """The WebSocket url without the line between."""
        return f"ws://127.0.0.1:{self.edge.port}{WEBSOCKET_PATH}"

    async def publish(self, topic: str, values: Iterable[Any]) -> list[Appended]:
        """Publish ``values`` to ``topic`` in order, past the line."""
        return await self.publish_all((topic, value) for value in values)

    async def publish_all(self, events: Iterable[tuple[str, Any]]) -> list[Appended]:
        """Publish (topic, value) pairs; what has one key keeps its order."""
        publish = self.edge.publisher.publish
        asked = [Publication(topic, msgspec.json.encode(value), "http") for topic, value in events]
        stored: list[Appended] = []
        for start in range(0, len(asked), _AT_ONCE):
            stored += await asyncio.gather(*(publish(ROOT, one) for one in asked[start : start + _AT_ONCE]))
        return stored

    def neighbours(self, topic: str, count: int) -> list[str]:
        """Telemetry topics of other devices that share the partition of ``topic``."""
        place = self.declared.find(topic).partition
        others = (f"devices/other-{n}/telemetry" for n in range(count * 100))
        return [other for other in others if self.declared.find(other).partition == place][:count]


@asynccontextmanager
async def world(server: Server) -> AsyncIterator[World]:
    one = World(server)
    await one.line.open()
    try:
        await one.start_edge()
        yield one
    finally:
        await one.line.close()
        await one.stop_edge()
