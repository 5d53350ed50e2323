"""Everything on one machine: log server, broker, edge, bridge, services as children, started again when one dies."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import groupby
from pathlib import Path

import msgspec

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server, answers
from gateway.adapters.tokens import keep_api_key
from gateway.broker_accounts import Accounts
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.errors import Misconfigured, ServerFailed, ServerMissing
from gateway.secret_file import write_secret
from gateway.settings import Settings

#: The demo's devices; what each measures follows from its name, see examples/demo.py.
FLEET = tuple(f"{kind}-{n:02d}" for n in range(1, 7) for kind in ("seattle", "bay", "river", "room", "pump"))

Say = Callable[[str], None]


class Running(msgspec.Struct, frozen=True):
    """Where a running ``gateway up`` answers; kept in its data folder for the commands beside it."""

    pid: int
    #: The edge, over HTTP and WebSocket.
    edge: str
    log: str
    mqtt: str
    #: Which broker: ``mosquitto``, ``iotcore``, or ``yours``.
    broker: str
    #: Bridge, workers, and edges that share a port -> where each answers /livez, /readyz and /metrics.
    health: dict[str, str] = {}


def running(settings: Settings) -> Running | None:
    """Return what runs on the data folder of ``settings``; None where nothing does."""
    try:
        found = msgspec.json.decode((Path(settings.gateway.data) / "up.json").read_bytes(), type=Running)
        os.kill(found.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return found


class Up:
    """The children of one data folder. ``start`` them, ``keep`` them, ``stop`` them; stopped in reverse order."""

    def __init__(
        self,
        settings: Settings,
        declared: Declared,
        topic_map: TopicMap,
        config: Path | None,
        say: Say,
        services: Sequence[str] = (),
        asking: Sequence[str] = (),
        demo: Path | None = None,
    ) -> None:
        """``asking``: those of ``services`` that ask others, and need a key for it. ``demo``: a program of FLEET."""
        self._settings = settings
        self._declared = declared
        self._map = topic_map
        self._config = config
        self._say = say
        self._services = services
        self._asking = asking
        self._demo = demo
        # Absolute: the children must not depend on where they stand.
        self.data = Path(settings.gateway.data).resolve()
        #: In the order in which they start, and stop backwards.
        self._children: list[Server] = []
        #: Those of them that start behind the others.
        self._behind: list[Server] = []
        self._starting: dict[Server, asyncio.Task[None]] = {}
        self._accounts: Accounts | None = None
        self._declarations = 0
        self._lock: int | None = None
        self._env: dict[str, str] = {}

    async def start(self) -> Running:
        """Start everything that the settings do not name elsewhere, but services and demo: those come in `keep`.

        Raises :class:`Misconfigured` where another ``gateway up`` has the data folder, and
        :class:`ServerFailed` or :class:`ServerMissing`; then call `stop`.
        """
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.data.chmod(0o700)
            self._take()
        except OSError as error:
            raise Misconfigured(
                f"cannot write in {self.data}: {error.strerror}", "run where you may, or set GATEWAY_DATA"
            ) from None
        log = self._settings.log.url
        if not log:
            await self._orphan_gone(self.data / "log" / "valkey.sock")
            log = (await self._child(partial(embedded.valkey, self.data / "log"))).url
        mqtt, broker = await self._mqtt()
        edge = self._settings.edge
        port = self._free(edge.host, edge.port or embedded.free_port(), "edge")
        origin = _origin(edge.host, port, bool(edge.tls_cert))
        self._env |= {"GATEWAY_LOG_URL": log, "GATEWAY_MQTT_URL": mqtt, "GATEWAY_EDGE_PORT": str(port)}
        self._env |= {"GATEWAY_DATA": str(self.data), "GATEWAY_ORIGIN": self._settings.gateway.origin or origin}
        for group in self._asking:
            keep_api_key(self._settings.api_keys_file, group, self._settings.key_file(group))
        edges = [f"edge-{n}" for n in range(1, edge.processes + 1)] if edge.processes > 1 else []
        names = (*edges, *self._services, "bridge")
        probed = dict(zip(names, embedded.free_ports(len(names)), strict=True))
        words = ["edge"]
        # Each start of a worker under the same name, so that it goes on with what it held when it was killed; of nobody
        # else's, for others may share the log.
        worker = f"up-{secrets.token_hex(4)}"
        for group in self._services:
            words += ["--service", f"{group}=http://127.0.0.1:{probed[group]}"]
            self._behind.append(self._probed(probed[group], group, "work", group, "--name", worker, now=False))
        if self._demo is not None:
            argv = (sys.executable, "-P", str(self._demo), mqtt, broker, *FLEET)
            # First, for it waits for what it needs, and shows something as soon as that is there.
            self._behind.insert(0, self._server("demo", argv, (), now=False))
        starting = [partial(self._probed, probed[name], name, *words) for name in edges]
        starting = starting or [partial(self._process, "edge", (self._edge_door(port),), *words)]
        bridge = partial(self._probed, probed["bridge"], "bridge", "bridge")
        # Also where one fails nobody is left on the way: `stop` ends those that are there.
        came = await asyncio.gather(*(self._child(start) for start in (*starting, bridge)), return_exceptions=True)
        if failed := [one for one in came if isinstance(one, BaseException)]:
            raise failed[0]
        self._children.sort(key=lambda child: child.name == "bridge")
        self._children += self._behind
        health = {name: f"http://127.0.0.1:{at}" for name, at in probed.items()}
        found = Running(os.getpid(), origin, log, mqtt, broker, health)
        write_secret(self.data / "up.json", msgspec.json.encode(found).decode())
        return found

    async def _mqtt(self) -> tuple[str, str]:
        """Return where the broker is, started where none is named, and which it is."""
        if self._settings.mqtt.url:
            return self._settings.mqtt.url, "yours"
        accounts = Accounts(self.data / "mqtt")
        server = await self._child(partial(self._broker, accounts))
        self._env |= {"GATEWAY_MQTT_USERNAME": "gateway"}
        self._env |= {"GATEWAY_MQTT_PASSWORD_FILE": str(server.data / "gateway.password")}
        if server.name == "mosquitto":
            self._accounts = accounts
            # For a registry of devices among the services, see devices/README.md.
            self._env |= {"DEVICES_BROKER_FOLDER": str(server.data)}
        return server.urls[0], server.name

    @property
    def began(self) -> bool:
        """Whether there is anything to stop."""
        return bool(self._children)

    async def keep(self) -> None:
        """Start the services, a few at a time, and again whatever dies, with growing pauses, until cancelled.

        Each time it says so, and why.
        """
        turns = asyncio.Semaphore(limits.UP_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep(child, turns), name=f"keep {child.name}")
            if self._services:
                group.create_task(self._announce(), name="services")
            if self._accounts is not None:
                group.create_task(self._follow(self._accounts), name="rights of accounts")

    def redeclare(self, declared: Declared, topic_map: TopicMap) -> None:
        """Have the broker's rights follow ``declared``, and every process of ours read the declarations again.

        Raises :class:`Misconfigured` where the broker cannot have such rights; then nothing is changed.
        """
        if self._accounts is not None:
            self._grant(self._accounts, declared, topic_map)
        self._declared.become(declared)
        self._map.become(topic_map)
        self._declarations += 1
        for child in self._children:
            # Who is on the way has no ears yet: it is told when it is there.
            if child.name not in _DEAF and child not in self._starting:
                child.tell(signal.SIGHUP)

    async def stop(self) -> None:
        """Stop every child, the last first, and equals at once: none drains into another. Nothing stays behind."""
        kinds = [[*equals] for _, equals in groupby(reversed(self._children), self._kind)]
        for equals in kinds:
            for child in equals:
                child.tell(signal.SIGTERM)
            if starting := [self._starting[child] for child in equals if child in self._starting]:
                # One that ends meanwhile fails to start.
                await asyncio.gather(*starting, return_exceptions=True)
            await asyncio.gather(*(asyncio.to_thread(child.stop) for child in equals))
        if self._lock is not None:
            (self.data / "up.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _kind(self, child: Server) -> str:
        return "behind" if child in self._behind else child.name.partition("-")[0]

    async def _announce(self) -> None:
        """Say when all services are ready."""
        for door in (door for child in self._behind for door in child.doors):
            ready = msgspec.structs.replace(door, asks=_asking("/readyz"))
            while not await asyncio.to_thread(answers, ready):  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(limits.LOOK_EVERY)
        self._say(f"all {len(self._services)} services are ready")

    async def _follow(self, accounts: Accounts) -> None:
        """Give the rights that its declarations have to accounts that a registry makes meanwhile."""
        seen = accounts.changed
        while True:
            await asyncio.sleep(limits.LOOK_EVERY)
            if (now := accounts.changed) != seen:
                seen = now
                try:
                    self._grant(accounts, self._declared, self._map)
                except Misconfigured as error:
                    self._say(str(error))

    def _grant(self, accounts: Accounts, declared: Declared, topic_map: TopicMap) -> None:
        broker = next(child for child in self._children if child.name == "mosquitto")
        if accounts.grant(declared, topic_map):
            broker.tell(signal.SIGHUP)

    async def _keep(self, child: Server, turns: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        told = ""
        if child in self._behind:
            told = await self._failure(child, turns)
        born, failures = loop.time(), 0
        while True:
            await asyncio.sleep(limits.LOOK_EVERY)
            if child.alive:
                continue
            if loop.time() - born > limits.CALM_AFTER:
                failures = 0
            pause = min(limits.RESTART_PAUSE[1], limits.RESTART_PAUSE[0] * 2 ** min(failures, 10))
            failures += 1
            if not told:
                self._say(f"{child.name} {last_words(child)}; starting it again")
            await asyncio.sleep(pause)
            told = await self._failure(child, turns, told)
            if not told:
                with suppress(ServerFailed):  # gone again: said at the next look
                    self._say(f"{child.name} is back (process {child.pid})")
            born = loop.time()

    async def _failure(self, child: Server, turns: asyncio.Semaphore, told: str = "") -> str:
        """Start ``child``; return why it failed, said where it was not ``told``, or nothing."""
        # Also a service that is tried again: all of them at once would be too slow for each of them.
        async with turns if child in self._behind else nullcontext():
            declarations = self._declarations
            starting = asyncio.create_task(asyncio.to_thread(child.start), name=f"start {child.name}")
            self._starting[child] = starting
            starting.add_done_callback(lambda _: self._starting.pop(child, None))
            try:
                # Who stops us waits for it: see `stop`.
                await asyncio.shield(starting)
            except ServerFailed as error:
                if str(error) != told:
                    self._say(str(error))
                return str(error)
        if declarations != self._declarations and child.name not in _DEAF:
            child.tell(signal.SIGHUP)
        return ""

    async def _child(self, start: Callable[[], Server]) -> Server:
        child = await asyncio.to_thread(start)
        self._children.append(child)
        return child

    def _probed(self, port: int, name: str, *words: str, now: bool = True) -> Server:
        """A process of ours that answers probes at an address of its own."""
        door = Door(f"http://127.0.0.1:{port}", port=port, asks=_asking("/livez"), expects=b"HTTP/1.1 200")
        return self._process(name, (door,), *words, "--health", f"127.0.0.1:{port}", now=now)

    def _process(self, name: str, doors: tuple[Door, ...], *words: str, now: bool = True) -> Server:
        config = ("--config", str(self._config)) if self._config is not None else ()
        return self._server(name, (sys.executable, "-m", "gateway.cli", *words, *config), doors, now=now)

    def _server(self, name: str, argv: tuple[str, ...], doors: tuple[Door, ...], *, now: bool) -> Server:
        folder = self.data / name
        folder.mkdir(mode=0o700, exist_ok=True)
        # Children inherit our variables; they hold addresses and names of files, never a secret.
        os.environ.update(self._env)
        return Server(Plan(name, argv, folder, doors), now=now)

    def _edge_door(self, port: int) -> Door:
        url = f"http://127.0.0.1:{port}"
        if self._settings.edge.tls_cert:
            return Door(url, port=port)
        return Door(url, port=port, asks=_asking("/livez"), expects=b"HTTP/1.1 200")

    def _broker(self, accounts: Accounts) -> Server:
        folder = self.data / "mqtt"
        users = accounts.by_hand()
        port = self._free("127.0.0.1", 1883, "MQTT broker")
        try:
            server = embedded.mosquitto(folder, users=users, port=port, hashed=accounts.of_a_registry(users))
        except ServerMissing as missing:
            v4 = self._free("127.0.0.1", port + 1, "MQTT 3.1.1 listener")
            # It takes no account later: those of the demo are made before it starts.
            demo = {name: secrets.token_urlsafe(18) for name in FLEET} if self._demo is not None else {}
            server = embedded.iotcore(folder, users={**demo, **users}, port=port, port_v4=v4)
            write_secret(folder / "demo.json", json.dumps({name: users.get(name, word) for name, word in demo.items()}))
            self._say(
                f"broker: iotcore, from a Python wheel; MQTT 5 on port {port}, MQTT 3.1.1 on {v4}. It keeps nothing "
                "across a restart, takes no device of a registry, gives every account every right, lets nobody in "
                f"without one, and marks no redelivery. For more: {missing.install}"
            )
            return server
        accounts.settle(users)
        accounts.grant(self._declared, self._map)
        os.kill(server.pid, signal.SIGHUP)
        return server

    def _free(self, host: str, wanted: int, what: str) -> int:
        for port in range(wanted, min(wanted + limits.PORTS_TRIED, 65_536)):
            try:
                socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
            except OSError:
                continue
            if port != wanted:
                self._say(f"port {wanted} is taken: the {what} listens on {port}")
            return port
        raise Misconfigured(f"no port from {wanted} on is free for the {what}", "end what holds them, or set another")

    async def _orphan_gone(self, path: Path) -> None:
        """Wait for the log server of an `up` that was killed: two on one append-only file would ruin it."""
        give_up = asyncio.get_running_loop().time() + limits.ORPHAN_WITHIN
        while answers(Door("", path=str(path))):
            if asyncio.get_running_loop().time() > give_up:
                raise Misconfigured(f"a log server still answers at {path}", "stop it, or set gateway.data")
            await asyncio.sleep(limits.LOOK_EVERY)

    def _take(self) -> None:
        lock = os.open(self.data / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Misconfigured(
                f"another `gateway up` uses {self.data}", "stop it, or set gateway.data to another folder"
            ) from None
        self._lock = lock


#: Children that no SIGHUP concerns: the broker's are its accounts' business.
_DEAF = ("valkey", "mosquitto", "iotcore", "demo")


def _asking(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def _origin(host: str, port: int, tls: bool) -> str:
    shown = f"[{host}]" if ":" in host else host
    shown = "127.0.0.1" if shown in ("0.0.0.0", "[::]", "") else shown  # noqa: S104 - compared, not bound
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def last_words(child: Server) -> str:
    """Return how ``child`` ended, for people: by which signal, else by the last line that it wrote."""
    if child.ended < 0:
        # What it wrote last is of before, and has nothing to do with it.
        return f"was killed (signal {-child.ended})"
    try:
        with child.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - limits.LAST_WORDS))
            text = log.read().decode(errors="replace").strip()
    except OSError:
        text = ""
    return f"ended after saying {text.splitlines()[-1]!r}" if text else "ended without a word"
