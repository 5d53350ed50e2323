"""Edges: what an event costs them and the log server, by topics, filters, partitions and edges."""

from __future__ import annotations

import re
import secrets
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import redis

from benchmarks import loads, machine
from benchmarks.edges_process import Task
from benchmarks.results import Row, Section
from benchmarks.topics import TOPICS
from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.log.keys import AppLog, log_key
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.edge.process import WEBSOCKET_PATH

_METHOD = (
    "CPU time of all edges together, and of the log server, divided by the events that were appended meanwhile: "
    "{rate:,} a second of 128 bytes for {seconds:g} s, {batch} at once, spread over the topics in turn. Every event "
    "goes to one watcher of `try/bench/#` at each edge; the other filters are topics that nobody publishes to, 100 of "
    "a client. Each edge reads every partition for itself, so the edges' figure grows with their number, and the log "
    "server's by one more reader. The edges share a core, the log server (Valkey, Unix socket, `appendfsync always`) "
    "and what appends have the other. One thing changes at a time, from the first row, the median of three runs "
    "and what ratios are to."
)
_RATE, _BATCH = 5_000, 50
#: Filters of one client; a gateway lets it have 128.
_EACH = 100
_READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
#: Seconds within which everybody has subscribed.
_WITHIN = 30.0


class Case(msgspec.Struct, frozen=True):
    """What is varied. ``filters`` are those that nobody publishes to."""

    topics: int = 100
    filters: int = 100
    partitions: int = 8
    edges: int = 1


_FIRST = Case()
_CASES = (
    *(Case(topics=n) for n in (1, 10_000)),
    *(Case(filters=n) for n in (1_000, 10_000)),
    *(Case(partitions=n) for n in (1, 64)),
    *(Case(edges=n) for n in (0, 2, 4)),
)


class Cost(msgspec.Struct, frozen=True):
    """Microseconds of CPU per event."""

    edges: float
    log: float


class Scene:
    """A log server and the edges of one case."""

    def __init__(self, folder: Path, case: Case, stack: ExitStack) -> None:
        folder.mkdir()
        self._folder, self._case, self._stack = folder, case, stack
        self.log = stack.enter_context(embedded.valkey(folder / "log"))
        machine.pin(self.log.pid, machine.GENERATOR_CORE)
        self._redis = redis.Redis.from_url(self.log.url)
        stack.callback(self._redis.close)
        secret = folder / "secret"
        secret.touch(mode=0o600)
        self._secret = secrets.token_hex(32).encode()
        secret.write_bytes(self._secret)
        self.edges: list[Server] = []
        for n in range(case.edges):
            port = embedded.free_port()
            door = Door(f"http://127.0.0.1:{port}", port=port, asks=_READY, expects=b"HTTP/1.1 200")
            task = Task(self.log.url, case.partitions, port=port, secret_file=str(secret))
            self.edges.append(self._process(f"edge-{n}", "edge", task, machine.SERVER_CORE, door))

    def source(self) -> Server:
        task = Task(self.log.url, self._case.partitions, topics=self._case.topics, rate=_RATE, batch=_BATCH)
        return self._process("source", "source", task, machine.GENERATOR_CORE)

    def _process(self, name: str, role: str, task: Task, core: int, *doors: Door) -> Server:
        folder = self._folder / name
        folder.mkdir()
        (folder / "task.json").write_bytes(msgspec.json.encode(task))
        argv = (sys.executable, "-m", "benchmarks.edges_process", role, str(folder))
        server = self._stack.enter_context(Server(Plan(name, argv, folder, doors)))
        machine.pin(server.pid, core)
        return server

    def watch(self) -> None:
        """One client at each edge gets everything; others watch what never comes, spread over the edges."""
        self._clients(self.edges, 1, ["try/bench/#"])
        idle = self._case.filters // max(1, len(self.edges)) // _EACH
        if self.edges and idle:
            self._clients(self.edges, idle, [f"try/bench/i{{i}}-{n}" for n in range(_EACH)])
        for edge in self.edges:
            _until(edge, 1 + idle * _EACH)

    def _clients(self, edges: Sequence[Server], count: int, filters: Sequence[str]) -> None:
        token = issue(self._secret, Principal("user", "bench"), 3600, time.time())
        commands: list[object] = [{"id": 1, "connect": {"token": token}}]
        commands += [{"id": n, "subscribe": {"channel": filter}} for n, filter in enumerate(filters, 2)]
        text = "\n".join(msgspec.json.encode(command).decode() for command in commands)
        for edge in edges:
            words = ["-c", str(count), "-t", "600", "-p", str(edge.port), "-u", WEBSOCKET_PATH, "-D", "500"]
            # The edge lets go of who does not answer its pings.
            words += ["-M", '"tags"', "-R", "{}"]
            # A message of the generator's has room for 8,000 bytes.
            parts = _pieces(text, 7_000)
            self._stack.enter_context(loads.Load("wsload", [*words, *(w for p in parts for w in ("-m", p))], 600))

    def appended(self) -> int:
        asked = self._redis.pipeline(transaction=False)
        for app in Declared(TOPICS).apps:
            for place in AppLog(app).partitions(self._case.partitions):
                asked.xinfo_stream(log_key(place))
        # One that nothing was appended to is no stream yet.
        answers = asked.execute(raise_on_error=False)
        return sum(int(answer["entries-added"]) for answer in answers if isinstance(answer, dict))


def _pieces(text: str, most: int) -> list[str]:
    found = [""]
    for line in text.split("\n"):
        if len(found[-1]) + len(line) >= most:
            found.append("")
        found[-1] += ("\\n" if found[-1] else "text:") + line
    return found


def _until(edge: Server, filters: int) -> None:
    give_up = time.monotonic() + _WITHIN
    while _gauge(edge, "gateway_filters") < filters:
        if time.monotonic() > give_up:
            raise RuntimeError(f"{edge.name} has not {filters} filters after {_WITHIN:g} s")
        time.sleep(0.02)


def _gauge(edge: Server, name: str) -> float:
    with urllib.request.urlopen(f"{edge.url}/metrics", timeout=10) as answer:  # noqa: S310 - http, of our own making
        found = re.search(rf"(?m)^{name} (\S+)$", answer.read().decode())
    return float(found[1]) if found else 0.0


def _cpu(servers: Sequence[Server]) -> float:
    """Seconds that ``servers`` ran, to the nanosecond; the ticks of proc_pid_stat(5) are too coarse for a short run."""
    tasks = (task for server in servers for task in Path(f"/proc/{server.pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _cost(folder: Path, case: Case, seconds: float) -> Cost:
    with ExitStack() as stack:
        scene = Scene(folder, case, stack)
        scene.watch()
        source = scene.source()
        while not scene.appended():
            if not source.alive:
                raise RuntimeError(f"nothing was appended: {source.log.read_text()}")
            time.sleep(0.02)
        time.sleep(0.5)
        events, offered = scene.appended(), [_gauge(edge, "gateway_offered_total") for edge in scene.edges]
        edges, log = _cpu(scene.edges), _cpu([scene.log])
        time.sleep(seconds)
        edges, log = _cpu(scene.edges) - edges, _cpu([scene.log]) - log
        events = scene.appended() - events
        for edge, before in zip(scene.edges, offered, strict=True):
            came = _gauge(edge, "gateway_offered_total") - before
            if not 0.8 * events < came < 1.5 * events:
                raise RuntimeError(f"{edge.name} offered {came:g} frames while {events} events were appended")
    return Cost(edges / events * 1e6, log / events * 1e6)


def run(folder: Path, quick: bool) -> Section:
    seconds = 0.5 if quick else 1.5
    (folder / "edges").mkdir()
    named = dict(zip(Case.__struct_fields__, msgspec.structs.astuple(_FIRST), strict=True))
    name = ", ".join(f"{value:,} {key if value != 1 else key[:-1]}" for key, value in named.items())
    # All ratios hang on it, so it is the median of three.
    firsts = [_cost(folder / "edges" / f"first-{n}", _FIRST, seconds) for n in range(1 if quick else 3)]
    first = Cost(statistics.median(one.edges for one in firsts), statistics.median(one.log for one in firsts))
    rows = [Row(f"edge, {name}", "µs", (first.edges,)), Row(f"log server, {name}", "µs", (first.log,))]
    for number, case in enumerate((_CASES[1], _CASES[-2]) if quick else _CASES):
        found = _cost(folder / "edges" / str(number), case, seconds)
        (key,) = (key for key, value in named.items() if getattr(case, key) != value)
        now, then = (f"{value:,} {key if value != 1 else key[:-1]}" for value in (getattr(case, key), named[key]))
        if case.edges:
            rows.append(Row(f"edges, {now}", "µs", (found.edges,), then, (first.edges,)))
        rows.append(Row(f"log server, {now}", "µs", (found.log,), then, (first.log,)))
    method = _METHOD.format(rate=_RATE, seconds=seconds, batch=_BATCH)
    return Section("Edges", method, tuple(rows))
