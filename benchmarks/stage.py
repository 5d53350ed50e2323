"""What is measured, running: log server, broker, bridge and edge as real processes, each on its core."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import redis

from benchmarks import loads, machine
from benchmarks.role import Addresses
from benchmarks.topics import TOPICS, WATCHED
from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.log.keys import AppLog, log_key
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.edge.process import WEBSOCKET_PATH

_READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Stage:
    """The servers that were asked for, in ``folder``; they end with the `stage`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        secret = folder / "secret"
        secret.touch(mode=0o600)
        self._secret = secrets.token_hex(32).encode()
        secret.write_bytes(self._secret)
        self.log = self._start(embedded.valkey(folder / "log"), machine.SERVER_CORE)
        self._log = redis.Redis.from_url(self.log.url)
        self._addresses = Addresses(log=self.log.url, edge_port=embedded.free_port(), secret_file=str(secret))

    def _start(self, server: Server, core: int) -> Server:
        machine.pin(server.pid, core)
        return self._stack.enter_context(server)

    def broker(self, core: int) -> Server:
        """Start Mosquitto; raises `ServerMissing`."""
        password = secrets.token_hex(16)
        server = self._start(embedded.mosquitto(self.folder / "broker", users={"gateway": password}), core)
        change = {"broker": server.url, "broker_password": password, "health_port": embedded.free_port()}
        self._addresses = msgspec.structs.replace(self._addresses, **change)
        return server

    def bridge(self) -> Server:
        """Start the bridge and wait until the broker has its subscription."""
        return self._role("bridge", self._addresses.health_port)

    def edge(self, *, pings: bool = True) -> Server:
        """Start the edge. Without ``pings`` its clients get none while anything is measured."""
        if not pings:
            self._addresses = msgspec.structs.replace(self._addresses, ping_every=86_400.0)
        return self._role("edge", self._addresses.edge_port)

    def keyed_edge(self, number: int, key_file: str) -> Server:
        """Start one of several edges, which takes tokens of a key of EdDSA."""
        self._addresses = msgspec.structs.replace(self._addresses, edge_port=embedded.free_port(), key_file=key_file)
        return self._role("edge", self._addresses.edge_port, f"edge-{number}")

    def _role(self, name: str, port: int, place: str = "") -> Server:
        folder = self.folder / (place or name)
        folder.mkdir()
        (folder / "addresses.json").write_bytes(msgspec.json.encode(self._addresses))
        argv = (sys.executable, "-m", "benchmarks.role", name, str(folder))
        door = Door(f"http://127.0.0.1:{port}", port=port, asks=_READY, expects=b"HTTP/1.1 200")
        return self._start(Server(Plan(name, argv, folder, (door,))), machine.SERVER_CORE)

    def stored(self) -> int:
        """Return how many entries the log was ever given, trimmed ones included (XINFO STREAM)."""
        asked = self._log.pipeline(transaction=False)
        for app in Declared(TOPICS).apps:
            for partition in AppLog(app).partitions(limits.PARTITIONS):
                asked.xinfo_stream(log_key(partition))
        return sum(int(answer["entries-added"]) for answer in asked.execute())

    def until_stored(self, count: int, within: float) -> float:
        """Wait until the log has ``count`` entries; return the time of the monotonic clock."""
        give_up = time.monotonic() + within
        while (stored := self.stored()) < count:
            if time.monotonic() > give_up:
                raise RuntimeError(f"lost: the log has {stored} of {count} entries after {within} s")
            time.sleep(0.02)
        return time.monotonic()

    def token(self, user: str = "bench") -> str:
        return issue(self._secret, Principal("user", user), 3600, time.time())

    @property
    def edge_port(self) -> int:
        return self._addresses.edge_port

    def watchers(self, how: loads.Counting, count: int, seconds: float) -> loads.Load:
        """Let ``count`` clients with a verified token watch the topic."""
        commands = [
            {"id": 1, "connect": {"token": self.token()}},
            {"id": 2, "subscribe": {"channel": WATCHED}},
        ]
        first = tuple(msgspec.json.encode(command).decode() for command in commands)
        return loads.watchers(self._addresses.edge_port, how, count, seconds, path=WEBSOCKET_PATH, first=first)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A log server, and whatever is then asked for."""
    folder.mkdir()
    with ExitStack() as stack:
        yield Stage(folder, stack)
