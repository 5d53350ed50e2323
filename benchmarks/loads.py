"""The generators in C: compiled once, run on their own core, answering with one line of JSON."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks import machine
from benchmarks.machine import NotMeasurable
from gateway.adapters.child import Plan, Server
from gateway.adapters.embedded import free_port

_HERE = Path(__file__).parent
_BIN = _HERE / "bin"
#: Beyond what a generator was asked for: it opens its connections within 60 s or gives up.
_GUARD = 90.0

T = TypeVar("T")


class Latency(msgspec.Struct, frozen=True):
    """Microseconds from the generator's clock to the receiver's: one clock, one machine."""

    n: int
    p50: float
    p99: float
    max: float


class Received(msgspec.Struct, frozen=True):
    """What ``wsload`` counted."""

    conns: int
    lost_conns: int
    wall_s: float
    msgs: int
    bytes: int
    gen_cpu_s: float
    srv_cpu_s: float = 0.0
    #: Deliveries per second of the servers' CPU.
    msgs_per_cpu_s: float = 0.0
    lat_us: Latency | None = None


class Held(msgspec.Struct, frozen=True):
    """What ``wsload`` held: connections where nothing happens."""

    conns: int
    lost_conns: int
    #: Connections that have answered a ping.
    pinged: int
    #: Of the server, before the first connection and at the end.
    rss0_kb: int
    rss_kb: int


class Sent(msgspec.Struct, frozen=True):
    """What ``mqttgen`` published."""

    sent: int
    acked: int
    wall_s: float
    per_s: float


def build() -> None:
    """Compile what is missing or older than its source; raises :class:`NotMeasurable` without a compiler."""
    _BIN.mkdir(exist_ok=True)
    for source in sorted(_HERE.glob("*.c")):
        program = _BIN / source.stem
        if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
            continue
        if shutil.which("gcc") is None:
            raise NotMeasurable("the load generators are C and gcc is missing: apt install gcc libc6-dev")
        # Its own output first: a broken build must not look like a good one.
        fresh = program.with_suffix(".new")
        subprocess.run(["gcc", "-O2", "-w", "-o", fresh, source], check=True)
        fresh.rename(program)


class Load:
    """A generator at work; ``result`` waits for its answer."""

    def __init__(self, name: str, arguments: Sequence[str], within: float) -> None:
        self._name = name
        self._within = within + _GUARD
        argv = [str(_BIN / name), *arguments]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        machine.pin(self._child.pid, machine.GENERATOR_CORE)

    def ready(self) -> None:
        """Wait until ``wsload`` has opened all its connections."""
        assert self._child.stderr is not None
        line = self._child.stderr.readline()
        if not line.startswith("ready"):
            self._child.kill()
            raise RuntimeError(f"{self._name}: {line}{self._child.stderr.read()}")

    def result(self, type: type[T], *, strict: bool = True) -> T:
        """Wait for the answer. ``strict`` takes none from a generator that lost connections or received nothing."""
        try:
            out, err = self._child.communicate(timeout=self._within)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise
        if self._child.returncode and (strict or not out):
            raise RuntimeError(f"{self._name} ended with {self._child.returncode}: {err}{out}")
        return msgspec.json.decode(out, type=type)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()


class Counting(msgspec.Struct, frozen=True):
    """How watchers count: from when, and what."""

    #: Occurrences of it are deliveries; protocol pings have none.
    marker: str
    #: Seconds between the last open connection and the first that counts.
    warm_up: float
    #: Read the nanoseconds behind the marker, instead of sparing the generator's core.
    timed: bool = False
    #: End when so many have come; 0 does not.
    most: int = 0
    #: Servers whose CPU time is wanted.
    servers: tuple[int, ...] = ()


def watchers(
    port: int, how: Counting, count: int, seconds: float, *, path: str = "/", first: Sequence[str] = ()
) -> Load:
    """Open ``count`` WebSockets, send ``first`` on each, and count for ``seconds``."""
    arguments = ["-c", str(count), "-t", str(seconds), "-w", str(how.warm_up), "-p", str(port), "-u", path]
    for text in first:
        arguments += ["-m", f"text:{text}"]
    arguments += ["-l", how.marker] if how.timed else ["-M", how.marker, "-D", "500"]
    arguments += ["-n", str(how.most)] if how.most else []
    arguments += ["-S", ",".join(map(str, how.servers))] if how.servers else []
    return Load("wsload", arguments, seconds + how.warm_up)


def idle(
    server: Server, port: int, count: int, most: float, *, path: str, first: Sequence[str], more: Sequence[str] = ()
) -> Held:
    """Hold ``count`` WebSockets that have said ``first`` until each has answered a ping, or ``most`` seconds."""
    arguments = ["-i", "-c", str(count), "-t", str(most), "-p", str(port), "-u", path, "-S", str(server.pid), *more]
    for message in first:
        arguments += ["-m", message]
    with Load("wsload", arguments, most) as load:
        return load.result(Held)


def publisher(
    port: int, prefix: str, *, count: int, seconds: float, window: int = 500, rate: float = 0.0, topics: int = 1
) -> Load:
    """Publish ``count`` messages at QoS 1, ``window`` unacknowledged at most, for ``seconds`` at most."""
    numbers = (port, 1, window, rate, seconds, topics, count)
    return Load("mqttgen", [*map(str, numbers), prefix], seconds)


@contextmanager
def floor(folder: Path, count: int, batch: int, rate: float, size: int = 132) -> Iterator[tuple[Server, int]]:
    """The loop of ``send()`` in C for ``count`` clients, with frames of ``size`` bytes, and its port."""
    port = free_port()
    argv = (str(_BIN / "floor"), *map(str, (port, count, batch, rate, size)))
    # No door is asked whether it is up: it would count the question as a client.
    with Server(Plan("floor", argv, folder, ())) as server:
        give_up = time.monotonic() + _GUARD
        while not _listens(port):
            assert server.alive, "floor ended"
            assert time.monotonic() < give_up, "floor does not listen"
            time.sleep(0.01)
        machine.pin(server.pid, machine.SERVER_CORE)
        yield server, port


def _listens(port: int) -> bool:
    """Say whether somebody listens on ``port``, without connecting (proc_pid_net(5): state 0A)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
