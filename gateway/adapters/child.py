"""A server as a child process: started until it answers, stopped, killed, started again, and gone when we are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from gateway import limits
from gateway.errors import ServerFailed

#: Asks the kernel to end the server when we die, then becomes the server. It is a program and not a `preexec_fn`
#: because Python code between fork and exec can deadlock in a process with threads. SIGTERM and not SIGKILL:
#: the server writes its files. The second look at the parent covers a death before the request (prctl(2)).
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

#: The request to end with the parent is tied to the thread that started the child (prctl(2)), so one thread that
#: lives as long as the process starts them all. It comes to life with the first server, not with the import.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-servers")


class Door(msgspec.Struct, frozen=True):
    """Where a server answers: ``host`` and ``port``, or ``path`` of a Unix socket; ``asks`` must bring ``expects``."""

    url: str
    port: int = 0
    path: str = ""
    asks: bytes = b""
    expects: bytes = b""


class Plan(msgspec.Struct, frozen=True):
    """How a server is started: the command, its folder, and the doors that must answer before it counts as up."""

    name: str
    argv: tuple[str, ...]
    data: Path
    doors: tuple[Door, ...]


class Child(Protocol):
    """What a server is asked as a process: `subprocess.Popen`'s own words."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Server:
    """A running server that ends with us; use it as a context manager, or call `stop`.

    ``restart`` after ``stop`` or ``kill`` keeps folder, ports and urls. Calls block (at most
    `limits.SERVER_READY_WITHIN`). On Linux the child gets SIGTERM when this process dies, however it dies;
    elsewhere only `stop` ends it.
    """

    def __init__(self, plan: Plan, *, now: bool = True) -> None:
        """Where it is not to start ``now``, call `start`."""
        self._plan = plan
        self._child: Child | None = None
        if now:
            self.start()

    @property
    def name(self) -> str:
        return self._plan.name

    @property
    def url(self) -> str:
        """The first door: Unix socket of a stream server (or TCP alone), MQTT 5 of a broker."""
        return self._plan.doors[0].url

    @property
    def urls(self) -> tuple[str, ...]:
        """Every door: valkey and redis also by TCP if a port was asked for, iotcore also by MQTT 3.1.1."""
        return tuple(door.url for door in self._plan.doors)

    @property
    def doors(self) -> tuple[Door, ...]:
        return self._plan.doors

    @property
    def port(self) -> int:
        """The TCP port of the last door; 0 if the server has a Unix socket alone."""
        return self._plan.doors[-1].port

    @property
    def data(self) -> Path:
        return self._plan.data

    @property
    def log(self) -> Path:
        """What the server printed since its last start."""
        return self._plan.data / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Process id of the running child; raises `ServerFailed` when there is none."""
        if self._child is None or self._child.poll() is not None:
            raise self._failed()
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._running()

    @property
    def ended(self) -> int:
        """How the last child ended: its exit code, or the number of the signal below 0; 0 while it runs."""
        return (self._child.poll() or 0) if self._child is not None else 0

    def _running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start and wait until every door answers; raises `ServerFailed` where one does not in time."""
        if self._running():
            return
        for door in self._plan.doors:
            if door.port and _taken(door.port):
                raise ServerFailed(f"port {door.port} of {self.name} is taken", "choose another, or end its owner")
            if door.path:
                Path(door.path).parent.mkdir(mode=0o700, exist_ok=True)
        self._child = self._launch()
        give_up = time.monotonic() + limits.SERVER_READY_WITHIN
        while not all(answers(door) for door in self._plan.doors):
            if not self._running() or time.monotonic() > give_up:
                self.kill()
                raise self._failed()
            time.sleep(0.01)

    def _launch(self) -> Child:
        with self.log.open("wb") as log:
            launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._plan.argv]
            # A session of its own: Ctrl-C in a terminal must reach the gateway, which stops its servers last.
            return _starter.submit(
                subprocess.Popen,
                launch,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, where it runs; nothing waits."""
        if self._child is not None:
            self._child.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after `limits.SERVER_STOP_WITHIN`; returns when the process is gone."""
        if self._child is None:
            return
        self.tell(signal.SIGTERM)
        try:
            self._child.wait(limits.SERVER_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        for place in (Path(door.path) for door in self._plan.doors if door.path):
            if place.parent != self.data:  # a folder for a socket whose own had too long a name
                place.unlink(missing_ok=True)
                with suppress(OSError):
                    place.parent.rmdir()

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when the process is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def restart(self) -> None:
        """`stop` if it runs, then start again on the same folder and ports."""
        self.stop()
        self.start()

    def _failed(self) -> ServerFailed:
        log = self.log.read_bytes() if self.log.exists() else b""
        tail = log[-limits.SERVER_LOG_TAIL :].decode(errors="replace").strip()
        return ServerFailed(
            f"{self.name} did not start or ended", f"its log {self.log} ends with: {tail or '(nothing)'}"
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()


def _taken(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return False
    except OSError:
        return True


def answers(door: Door) -> bool:
    """Whether somebody answers at ``door`` as it says."""
    family, address = (socket.AF_UNIX, door.path) if door.path else (socket.AF_INET, ("127.0.0.1", door.port))
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
            if not door.asks:
                return True
            probe.sendall(door.asks)
            return probe.recv(64).startswith(door.expects)
        except OSError:
            return False
