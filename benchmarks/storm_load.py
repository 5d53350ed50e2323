"""A crowd of clients that comes back at once: ``python -m benchmarks.storm_load PLAN``; one line of JSON at the end."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import uvloop

from gateway.edge.process import WEBSOCKET_PATH

_CLOSE: Final = 0x88
_HANDSHAKE: Final = (
    f"GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


class Back(msgspec.Struct, frozen=True):
    """One client: who it is, what it watched, and where it stood."""

    token: str
    topic: str
    epoch: str
    offset: int


class Crowd(msgspec.Struct, frozen=True):
    """What the generator is told. Client n comes to port n modulo their number."""

    ports: tuple[int, ...]
    clients: tuple[Back, ...]
    #: Missed events of each client.
    missed: int
    within: float


class Came(msgspec.Struct, frozen=True):
    """What became of it; seconds from the first connect."""

    seconds: float
    #: Until half of the clients had all of theirs.
    half: float
    clients: int
    connected: int
    #: What the last client waited for a reply to one of its commands; SDKs give up after 5 s.
    longest: float
    #: Connections that were cut before their client had everything, so that it came again.
    again: int
    whole: int
    recovered: int
    #: Clients whose events were not each once and in order.
    wrong: int


class _Client(asyncio.Protocol):
    def __init__(self, back: Back, crowd: _Gathering) -> None:
        self._back = back
        self._crowd = crowd
        self._open = self._whole = False
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._offsets: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._open, self._data = True, rest
            self._say({"id": 1, "connect": {"token": self._back.token}})
        while (size := _whole(self._data)) is not None:
            if self._data[0] == _CLOSE:
                self._crowd.said(self._data[size[0] : size[1]])
                return
            message, self._data = self._data[size[0] : size[1]], self._data[size[1] :]
            for line in message.split(b"\n"):
                if line == b"{}":
                    self._say({})  # a ping, and its pong
                    continue
                self._take(msgspec.json.decode(line, type=_Message))

    def _take(self, message: _Message) -> None:
        if message.error is not None:
            raise RuntimeError(f"refused: {message.error}")
        if message.connect is not None or message.subscribe is not None:
            self._crowd.longest = max(self._crowd.longest, time.monotonic() - self._asked)
        if message.connect is not None:
            self._crowd.connected += 1
            back = self._back
            ask = {"channel": back.topic, "recover": True, "epoch": back.epoch, "offset": back.offset}
            self._say({"id": 2, "subscribe": ask})
        if message.subscribe is not None:
            self._crowd.recovered += message.subscribe.recovered
            self._offsets += [pub.offset for pub in message.subscribe.publications]
        if message.push is not None:
            self._offsets.append(message.push.pub.offset)
        if len(self._offsets) >= self._crowd.missed and not self._whole:
            self._whole = True
            self._crowd.done(self._offsets)

    def _say(self, command: object) -> None:
        assert self._transport is not None
        text = msgspec.json.encode(command)
        self._asked = time.monotonic()
        # Masked by zeros, which changes nothing (RFC 6455, 5.3).
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self._transport.write(b"\x81" + size + bytes(4) + text)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._whole:
            self._crowd.again(self._back)


class _Publication(msgspec.Struct):
    offset: int = 0


class _Subscribed(msgspec.Struct):
    recovered: bool = False
    publications: list[_Publication] = []


class _Push(msgspec.Struct):
    pub: _Publication


class _Message(msgspec.Struct):
    connect: dict[str, object] | None = None
    subscribe: _Subscribed | None = None
    push: _Push | None = None
    error: dict[str, object] | None = None


def _whole(data: bytes) -> tuple[int, int] | None:
    """Return where the payload of the first frame begins and ends, once all of it is there (RFC 6455, 5.2)."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, start = int.from_bytes(data[2:10], "big"), 10
    return (start, start + size) if len(data) >= max(start, 4) and len(data) >= start + size else None


class _Gathering:
    """All of them, and what they have."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.missed = crowd.missed
        self.connected = self.recovered = self._again = self._came = self._whole = self._wrong = 0
        self._half_at = self.longest = 0.0
        self._coming: set[asyncio.Task[Any]] = set()
        self._all_whole: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def run(self) -> Came:
        began = ended = time.monotonic()
        for back in self._crowd.clients:
            self.come(back)
        try:
            async with asyncio.timeout(self._crowd.within):
                ended = await self._all_whole
        except TimeoutError:
            ended = time.monotonic()
        return Came(
            seconds=ended - began,
            half=self._half_at - began,
            clients=len(self._crowd.clients),
            connected=self.connected,
            longest=self.longest,
            again=self._again,
            whole=self._whole,
            recovered=self.recovered,
            wrong=self._wrong,
        )

    def said(self, why: bytes) -> None:
        """The server closes a connection (RFC 6455, 5.5.1)."""
        print(f"closed: {int.from_bytes(why[:2], 'big')} {why[2:].decode()}", file=sys.stderr)

    def again(self, back: Back) -> None:
        """A connection was cut: its client comes back, as an SDK would, after up to a second."""
        self._again += 1
        asyncio.get_running_loop().call_later(random.random(), self.come, back)

    def come(self, back: Back) -> None:
        port = self._crowd.ports[self._came % len(self._crowd.ports)]
        self._came += 1
        loop = asyncio.get_running_loop()
        coming = loop.create_task(loop.create_connection(lambda: _Client(back, self), "127.0.0.1", port), name="come")
        self._coming.add(coming)
        coming.add_done_callback(self._coming.discard)

    def done(self, offsets: list[int]) -> None:
        count = len(self._crowd.clients)
        self._whole += 1
        self._wrong += len(offsets) != self.missed or offsets != sorted(set(offsets))
        if self._whole == (count + 1) // 2:
            self._half_at = time.monotonic()
        if self._whole == count:
            self._all_whole.set_result(time.monotonic())


async def _come(crowd: Crowd) -> Came:
    return await _Gathering(crowd).run()


def main(plan: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    came = uvloop.run(_come(msgspec.json.decode(Path(plan).read_bytes(), type=Crowd)))
    sys.stdout.buffer.write(msgspec.json.encode(came))
    sys.stdout.flush()
    os._exit(0)  # ten thousand sockets are closed faster by the kernel


if __name__ == "__main__":
    main(*sys.argv[1:])
