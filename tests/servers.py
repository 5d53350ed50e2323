"""Real servers for tests: a missing one skips at home and fails in CI."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Plan, Server
from gateway.errors import ServerMissing, Unavailable

#: The bridge's account on the brokers of the tests, and one device.
GATEWAY, GATEWAY_PASSWORD = "gateway", "a gateway of the tests"
DEVICE, DEVICE_PASSWORD = "pump-7", "a pump of the tests"
USERS = {GATEWAY: GATEWAY_PASSWORD, DEVICE: DEVICE_PASSWORD}

#: Every stream server that the log promises to run on.
LOG_SERVERS: dict[str, Callable[..., Server]] = {"redis": embedded.redis, "valkey": embedded.valkey}

#: What a test may ask a condition about: plainly, or by awaiting.
Condition = Callable[[], object] | Callable[[], Awaitable[object]]


async def eventually(condition: Condition, within: float = 30.0) -> None:
    """Wait until ``condition()`` is true, asked every 5 ms; fails after ``within`` seconds, naming the condition.

    ``within`` is a guard against hanging, not a promise about speed. What answers `Unavailable` is asked again.
    """
    give_up = time.monotonic() + within
    while True:
        why = ""
        try:
            answer = condition()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return
        except Unavailable as error:
            why = f" ({error})"
        if time.monotonic() > give_up:
            pytest.fail(f"not true within {within} s{why}: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)


def missing(error: ServerMissing) -> NoReturn:
    """Skip with the command that installs the server; with ``CI=true`` fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs every server: {error}")
    pytest.skip(str(error))


def stream_server(name: str, folder: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> Server:
    """A ``redis`` or ``valkey``: the machine's own, or from an image where Docker answers."""
    try:
        return LOG_SERVERS[name](folder, port=port, extra=extra)
    except ServerMissing as error:
        return _contained(error, lambda: embedded.stream_server(name, f"{name}-server", folder, port, extra))


def broker(folder: Path, users: Mapping[str, str] = USERS) -> Server:
    """A Mosquitto with the accounts of ``users``: the machine's own, or from an image where Docker answers."""
    try:
        return embedded.mosquitto(folder, users=users)
    except ServerMissing as error:
        return _contained(error, lambda: embedded.mosquitto_plan("mosquitto", folder, users))


def _contained(error: ServerMissing, plan: Callable[[], Plan]) -> Server:
    from tests.containers import Contained, docker_answers

    if not docker_answers():
        missing(error)
    return Contained(plan())


class Relay:
    """A TCP relay to 127.0.0.1:``target`` that can be cut; ``sent[n]`` is what the nth client said."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: set[asyncio.Task[None] | None] = set()
        self.sent: list[bytearray] = []
        self.port = 0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()
            await asyncio.gather(*(task for task in self._serving if task))

    def cut(self) -> None:
        """Break every connection without a word; new ones are served."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        said = bytearray()
        self.sent.append(said)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, back]
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, back, said), name="relay there")
            both.create_task(_pump(there, writer, bytearray()), name="relay back")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            said += data
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()
