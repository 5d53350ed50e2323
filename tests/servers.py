"""Real servers for tests: a missing one skips at home and fails in CI."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.errors import ServerMissing

#: The bridge's account on the brokers of the tests, and one device.
GATEWAY, GATEWAY_PASSWORD = "gateway", "a gateway of the tests"
DEVICE, DEVICE_PASSWORD = "pump-7", "a pump of the tests"
USERS = {GATEWAY: GATEWAY_PASSWORD, DEVICE: DEVICE_PASSWORD}

#: Every stream server that the log promises to run on.
LOG_SERVERS: dict[str, Callable[..., Server]] = {"redis": embedded.redis, "valkey": embedded.valkey}
LOG_IMAGES = {"redis": "redis:7", "valkey": "valkey/valkey:9"}

#: What a test may ask a condition about: plainly, or by awaiting.
Condition = Callable[[], object] | Callable[[], Awaitable[object]]


async def eventually(condition: Condition, within: float = 10.0) -> None:
    """Wait until ``condition()`` is true, asked every 5 ms; fails after ``within`` seconds, naming the condition.

    ``within`` is a guard against hanging, not a promise about speed.
    """
    give_up = time.monotonic() + within
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > give_up:
            pytest.fail(f"not true within {within} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)


def missing(error: ServerMissing) -> NoReturn:
    """Skip with the command that installs the server; with ``CI=true`` fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs every server: {error}")
    pytest.skip(str(error))


@contextmanager
def log_server_url(name: str, data: Path) -> Iterator[str]:
    """The url of a running ``redis`` or ``valkey``: the machine's own, or in a container where Docker answers."""
    try:
        server = LOG_SERVERS[name](data)
    except ServerMissing as error:
        if not docker_answers():
            missing(error)
        with _container(LOG_IMAGES[name]) as url:
            yield url
        return
    with server:
        yield server.url


def docker_answers() -> bool:
    """Is there a Docker daemon to start containers on?"""
    program = shutil.which("docker")
    if program is None:
        return False
    asked = subprocess.run([program, "info"], capture_output=True, timeout=30, check=False)
    return asked.returncode == 0


@contextmanager
def _container(image: str) -> Iterator[str]:
    """The same stream server from an image, by testcontainers.

    Written for machines without the packages; it has not been run where this was written (no Docker daemon).
    """
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    program = "valkey-server" if "valkey" in image else "redis-server"
    command = f"{program} --appendonly yes --appendfsync always --maxmemory-policy noeviction"
    with DockerContainer(image).with_command(command).with_exposed_ports(6379) as container:
        wait_for_logs(container, "Ready to accept connections")
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


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
