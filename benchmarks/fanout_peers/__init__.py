"""The peers of fan-out: servers that send one event to everybody who watches, each measured as we are.

Each file beside this one is a peer: how it starts, what its watchers say first, and, where it is a broker, the bytes
that publish. A peer that is not here is said to be absent, and the rest is measured.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from benchmarks import loads, machine
from benchmarks.results import Row
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.embedded import free_port
from gateway.errors import ServerFailed

#: Once in each delivery: in the payload that all send.
_MARKER = '"ts":'
#: Deliveries per second that are offered, so that each of them has room to spare on its core.
_OFFERED = 60_000


class Absent(Exception):
    """This peer is not on this machine; the text says what is missing."""


class Hall(msgspec.Struct, frozen=True):
    """Where watchers of a peer connect, and what they say."""

    #: The program; it listens at ``port`` for watchers, and at ``feed`` for who publishes.
    argv: tuple[str, ...]
    port: int
    #: Its second port; 0 where it makes the events by itself.
    feed: int = 0
    path: str = "/"
    subprotocol: str = ""
    #: As `wsload` takes them: ``text:…`` or ``bin:…``.
    first: tuple[str, ...] = ()


class Figure(msgspec.Struct, frozen=True):
    """What one measurement found."""

    #: Deliveries per second of the server's CPU.
    per_cpu_s: float
    #: Of what was offered, how much arrived.
    share: float


#: Name in the table -> module here, and what it is asked for.
PEERS: dict[str, tuple[str, str]] = {
    "Mosquitto, WebSocket listener": ("mosquitto", ""),
    "Node `ws`": ("node", "ws"),
    "Socket.IO": ("node", "socketio"),
    "NATS, WebSocket": ("nats", ""),
    "Centrifugo": ("centrifugo", ""),
}


class Beside:
    """The figures of all peers in one case, one more of each at every `again`: beside ours."""

    def __init__(self, folder: Path, count: int, batch: int, seconds: float) -> None:
        self._case = (folder, count, batch, seconds)
        self._found: dict[str, list[float]] = {name: [] for name in PEERS}
        #: Peer -> why it has no figure.
        self.absent: dict[str, str] = {}

    def again(self) -> None:
        """Measure each once more. One that is not here, or does not work, is left out from then on."""
        for name in [name for name in PEERS if name not in self.absent]:
            try:
                self._found[name].append(measure(name, *self._case).per_cpu_s)
            except (Absent, ServerFailed, RuntimeError) as why:
                self.absent[name] = str(why).partition("; ")[0]

    def rows(self, figure: str, ours: Sequence[float]) -> list[Row]:
        """Return a row for each peer; of one that was left out, it says why."""
        return [
            Row(figure, "/CPU s", tuple(ours), f"{name}: {self.absent[name]}")
            if name in self.absent
            else Row(figure, "/CPU s", tuple(ours), name, tuple(found), "ahead")
            for name, found in self._found.items()
        ]


def measure(name: str, folder: Path, count: int, batch: int, seconds: float) -> Figure:
    """Let ``count`` clients watch the peer while ``batch`` events of 128 bytes are published at once, again and again.

    The rate leaves the peer room to spare, so that no two batches meet. Raises :class:`Absent`.
    """
    module = _of(name)
    rate = max(1.0, _OFFERED / (count * batch))
    folder.mkdir(exist_ok=True)
    hall = module.hall(PEERS[name][1], folder, free_port(), free_port(), rate, batch)
    doors = tuple(Door(f"tcp://127.0.0.1:{port}", port=port) for port in (hall.port, hall.feed) if port)
    with Server(Plan("peer", hall.argv, folder, doors)) as server:
        machine.pin(server.pid, machine.SERVER_CORE)
        with _fed(module, hall, folder, rate, batch), _watched(hall, server.pid, count, seconds) as load:
            received = load.result(loads.Received)
    if received.lost_conns or not received.msgs or received.gen_cpu_s > 0.9 * received.wall_s:
        raise RuntimeError(f"{name} was not measured: {received}")
    return Figure(received.msgs_per_cpu_s, received.msgs / (received.wall_s * rate * batch * count))


def versions() -> dict[str, str]:
    """Return what was measured, beside what `machine.versions` tells."""
    found = []
    for name in PEERS:
        with suppress(Absent):
            found.append(_of(name).version(PEERS[name][1]))
    return {"fan-out's peers": ", ".join(found)}


def said(*argv: str) -> str:
    """Return what a program says of itself."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


#: Debian installs brokers there, which is not on every user's PATH.
SBIN = "/usr/sbin:/usr/local/sbin"


def program(name: str) -> str:
    """Return where ``name`` is installed; raises :class:`Absent`."""
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    if found is None:
        raise Absent(f"`{name}` is not on PATH")
    return found


def _of(name: str) -> Any:
    module = importlib.import_module(f"{__name__}.{PEERS[name][0]}")
    module.check(PEERS[name][1])
    return module


def _watched(hall: Hall, pid: int, count: int, seconds: float) -> loads.Load:
    warm_up = 1.0
    arguments = ["-c", str(count), "-t", str(seconds), "-w", str(warm_up), "-p", str(hall.port), "-u", hall.path]
    arguments += ["-M", _MARKER, "-D", "500", "-S", str(pid)]
    arguments += ["-P", hall.subprotocol] if hall.subprotocol else []
    for text in hall.first:
        arguments += ["-m", text]
    return loads.Load("wsload", arguments, seconds + warm_up)


@contextmanager
def _fed(module: ModuleType, hall: Hall, folder: Path, rate: float, batch: int) -> Iterator[None]:
    if not hall.feed:
        yield
        return
    argv = (sys.executable, "-m", "benchmarks.fanout_peers.feed", module.__name__, str(hall.feed))
    with Server(Plan("feed", (*argv, str(rate), str(batch)), folder, ())) as feed:
        machine.pin(feed.pid, machine.GENERATOR_CORE)
        yield
        if not feed.alive:
            raise RuntimeError(f"nothing was published: {feed.log.read_text()}")
