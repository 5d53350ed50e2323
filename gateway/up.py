"""Everything on one machine: log server, broker, edge, bridge and fleet as children, started again when one dies."""

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
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

import msgspec

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.device_rights import acl
from gateway.adapters.tokens import keep_api_key
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.errors import Misconfigured, ServerFailed, ServerMissing
from gateway.settings import Settings

#: The demo's devices; what each measures follows from its name, see examples/fleet.py.
FLEET = tuple(
    f"{kind}-{n:02d}"
    for kind, count in (("seattle", 8), ("bay", 8), ("river", 4), ("room", 4), ("meter", 2))
    for n in range(1, count + 1)
)

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
    ) -> None:
        """``asking``: those of ``services`` that ask others, and need a key for it."""
        self._settings = settings
        self._declared = declared
        self._map = topic_map
        self._config = config
        self._say = say
        self._services = services
        self._asking = asking
        # Absolute: the children must not depend on where they stand.
        self.data = Path(settings.gateway.data).resolve()
        self._children: list[Server] = []
        self._lock: int | None = None
        self._env: dict[str, str] = {}

    async def start(self, fleet: Path | None = None) -> Running:
        """Start everything that the settings do not name elsewhere, and the program ``fleet`` with the demo's accounts.

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
            log = (await self._child(lambda: embedded.valkey(self.data / "log"))).url
        mqtt, broker = self._settings.mqtt.url, "yours"
        if not mqtt:
            server = await self._child(lambda: self._broker(FLEET if fleet else ()))
            mqtt, broker = server.urls[0], server.name
            self._env |= {"GATEWAY_MQTT_USERNAME": "gateway"}
            self._env |= {"GATEWAY_MQTT_PASSWORD_FILE": str(self.data / "mqtt" / "gateway.password")}
        edge = self._settings.edge
        port = self._free(edge.host, edge.port or embedded.free_port(), "edge")
        self._env |= {"GATEWAY_LOG_URL": log, "GATEWAY_MQTT_URL": mqtt, "GATEWAY_EDGE_PORT": str(port)}
        self._env |= {"GATEWAY_DATA": str(self.data)}
        origin = _origin(edge.host, port, bool(edge.tls_cert))
        self._env |= {"GATEWAY_ORIGIN": self._settings.gateway.origin or origin}
        for group in self._asking:
            keep_api_key(self._settings.api_keys_file, group, self._settings.key_file(group))
        edges = [f"edge-{n}" for n in range(1, edge.processes + 1)] if edge.processes > 1 else []
        names = (*edges, *self._services, "bridge")
        probed = dict(zip(names, _free_ports(len(names)), strict=True))
        behind = [
            word for group in self._services for word in ("--service", f"{group}=http://127.0.0.1:{probed[group]}")
        ]
        words = {**dict.fromkeys(edges, ("edge", *behind)), **{group: ("work", group) for group in self._services}}
        starting = [partial(self._probed, at, name, *words.get(name, (name,))) for name, at in probed.items()]
        if not edges:
            starting.append(partial(self._process, "edge", (self._edge_door(port),), "edge", *behind))
        await asyncio.gather(*(self._child(start) for start in starting))
        if fleet is not None:
            accounts = str(self.data / "mqtt" / "devices.json")
            argv = (sys.executable, "-P", str(fleet), mqtt, accounts)
            await self._child(lambda: self._server("fleet", argv, ()))
        # The order in which they stop is this one, backwards.
        order = ("valkey", "mosquitto", "iotcore", "edge", *names, "fleet")
        self._children.sort(key=lambda child: order.index(child.name))
        health = {name: f"http://127.0.0.1:{at}" for name, at in probed.items()}
        found = Running(os.getpid(), origin, log, mqtt, broker, health)
        write_secret(self.data / "up.json", msgspec.json.encode(found).decode())
        return found

    @property
    def began(self) -> bool:
        """Whether there is anything to stop."""
        return bool(self._children)

    async def keep(self) -> None:
        """Start again what dies, with growing pauses, until cancelled; each time it says so, and why."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep(child), name=f"keep {child.name}")

    def redeclare(self, declared: Declared, topic_map: TopicMap) -> None:
        """Have the broker's rights follow ``declared``, and every process of ours read the declarations again.

        Raises :class:`Misconfigured` where the broker cannot have such rights; then nothing is changed.
        """
        told = [child for child in self._children if child.name not in ("valkey", "mosquitto", "iotcore", "fleet")]
        broker = next((child for child in self._children if child.name == "mosquitto"), None)
        if broker is not None:
            folder = self.data / "mqtt"
            try:
                known = json.loads((folder / "devices.json").read_text())
                write_secret(folder / "acl", acl(declared, topic_map, known))
            except (OSError, ValueError) as error:
                raise Misconfigured(f"the broker's rights in {folder} cannot follow: {error}", "mend it") from None
        self._declared.become(declared)
        self._map.become(topic_map)
        for child in (broker, *told):
            if child is not None and child.alive:
                os.kill(child.pid, signal.SIGHUP)

    async def stop(self) -> None:
        """Stop every child, the last first, and the edges at once: none drains into another. Nothing stays behind."""
        for _, equals in groupby(reversed(self._children), lambda child: child.name.partition("-")[0]):
            await asyncio.gather(*(asyncio.to_thread(child.stop) for child in equals))
        if self._lock is not None:
            (self.data / "up.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def _keep(self, child: Server) -> None:
        loop = asyncio.get_running_loop()
        born, failures, told = loop.time(), 0, ""
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
            try:
                await asyncio.to_thread(child.start)
            except ServerFailed as error:
                if str(error) != told:
                    self._say(str(error))
                told = str(error)
            else:
                told = ""
                self._say(f"{child.name} is back (process {child.pid})")
            born = loop.time()

    async def _child(self, start: Callable[[], Server]) -> Server:
        child = await asyncio.to_thread(start)
        self._children.append(child)
        return child

    def _probed(self, port: int, name: str, *words: str) -> Server:
        """A process of ours that answers probes at an address of its own."""
        door = Door(f"http://127.0.0.1:{port}", port=port, asks=_LIVEZ, expects=b"HTTP/1.1 200")
        return self._process(name, (door,), *words, "--health", f"127.0.0.1:{port}")

    def _process(self, name: str, doors: tuple[Door, ...], *words: str) -> Server:
        config = ("--config", str(self._config)) if self._config is not None else ()
        return self._server(name, (sys.executable, "-m", "gateway.cli", *words, *config), doors)

    def _server(self, name: str, argv: tuple[str, ...], doors: tuple[Door, ...]) -> Server:
        folder = self.data / name
        folder.mkdir(mode=0o700, exist_ok=True)
        # Children inherit our variables; they hold addresses and names of files, never a secret.
        os.environ.update(self._env)
        return Server(Plan(name, argv, folder, doors))

    def _edge_door(self, port: int) -> Door:
        url = f"http://127.0.0.1:{port}"
        if self._settings.edge.tls_cert:
            return Door(url, port=port)
        return Door(url, port=port, asks=_LIVEZ, expects=b"HTTP/1.1 200")

    def _broker(self, devices: tuple[str, ...]) -> Server:
        folder = self.data / "mqtt"
        folder.mkdir(mode=0o700, exist_ok=True)
        password = _kept(folder / "gateway.password", lambda: secrets.token_urlsafe(24)).strip()
        known = json.loads(_kept(folder / "devices.json", lambda: "{}"))
        known |= {name: secrets.token_urlsafe(18) for name in devices if name not in known}
        write_secret(folder / "devices.json", json.dumps(known, indent=1))
        users = {**known, "gateway": password}
        rights = acl(self._declared, self._map, known)
        port = self._free("127.0.0.1", 1883, "MQTT broker")
        try:
            server = embedded.mosquitto(folder, users=users, port=port)
        except ServerMissing as missing:
            v4 = self._free("127.0.0.1", port + 1, "MQTT 3.1.1 listener")
            server = embedded.iotcore(folder, users=users, port=port, port_v4=v4)
            self._say(
                f"broker: iotcore, from a Python wheel; MQTT 5 on port {port}, MQTT 3.1.1 on {v4}. It keeps nothing "
                "across a restart, gives every account every right, lets nobody in without one, and marks no "
                f"redelivery. For more: {missing.install}"
            )
            return server
        write_secret(folder / "acl", rights)
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
        while _answers(path):
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


_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _origin(host: str, port: int, tls: bool) -> str:
    shown = f"[{host}]" if ":" in host else host
    shown = "127.0.0.1" if shown in ("0.0.0.0", "[::]", "") else shown  # noqa: S104 - compared, not bound
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def _free_ports(count: int) -> list[int]:
    """So many different ports of loopback that nobody holds now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


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


def write_secret(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, which nobody else may read at any moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def _kept(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        write_secret(path, make())
    return path.read_text()
