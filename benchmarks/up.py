"""`gateway up` under measurement: on the cores that a part gives it, until a block ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec

from benchmarks import machine
from gateway.adapters import embedded
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.up import Running

BOTH: Final = (machine.SERVER_CORE, machine.GENERATOR_CORE)
#: Seconds within which whatever is waited for has happened.
WITHIN: Final = 120.0
#: Seconds between two looks.
LOOK: Final = 0.1
_CONFIG: Final = """\
[gateway]
apps = [{apps}]
[edge]
port = {port}
anonymous = false
[tokens]
hs256_secret_file = "{secret}"
"""


class Up(msgspec.Struct, frozen=True):
    """What runs, and where it keeps its data."""

    running: Running
    data: Path
    secret: bytes

    def token(self, kind: str, name: str) -> str:
        return issue(self.secret, Principal(kind, name), 3600, time.time())

    def http(self) -> httpx.Client:
        """Return a client of the edge, as an operator; use ``with``."""
        headers = {"authorization": f"Bearer {self.token('operator', 'bench')}"}
        return httpx.Client(base_url=self.running.edge, headers=headers, timeout=WITHIN, trust_env=False)


@contextmanager
def gateway(
    folder: Path, apps: Sequence[str], cores: Sequence[int], *, more: str = "", devices: Mapping[str, str] | None = None
) -> Iterator[Up]:
    """Run ``apps`` from when all their services are ready. ``more``: of gateway.toml; ``devices``: name → password."""
    data, secret, config = folder / "data", folder / "secret", folder / "gateway.toml"
    (data / "mqtt").mkdir(parents=True)
    (data / "mqtt" / "devices.json").write_bytes(msgspec.json.encode(devices or {}))
    secret.touch(mode=0o600)
    secret.write_bytes(os.urandom(32).hex().encode())
    named = ", ".join(f'"{name}.app:app"' for name in apps)
    config.write_text(_CONFIG.format(apps=named, port=embedded.free_port(), secret=secret) + more)
    log, env = folder / "up.log", os.environ | {"GATEWAY_DATA": str(data)}
    argv = [sys.executable, "-m", "gateway.cli", "up", "--config", str(config)]
    with process(argv, log, env, partial(ready, log), cores):
        running = msgspec.json.decode((data / "up.json").read_bytes(), type=Running)
        yield Up(running, data, secret.read_bytes())


@contextmanager
def process(
    argv: Sequence[str], log: Path, env: Mapping[str, str], there: Callable[[], bool], cores: Sequence[int]
) -> Iterator[None]:
    """Run ``argv`` on ``cores`` until the block ends, from when it is ``there``."""
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=env) as child:
        # Its children have both from it, for it is slower to begin than we are.
        os.sched_setaffinity(child.pid, cores)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (most, most))
        try:
            until(there, lambda: child.poll() is None, log.read_text)
            yield
        finally:
            child.terminate()
            try:
                child.wait(WITHIN)
            except subprocess.TimeoutExpired:
                child.kill()


def ready(log: Path) -> bool:
    """Say whether all services are, as `gateway up` says in ``log``."""
    return "services are ready" in log.read_text()


def until(met: Callable[[], bool], alive: Callable[[], bool], said: Callable[[], str]) -> None:
    """Wait until ``met``; raises :class:`RuntimeError` with what was ``said`` where that does not happen."""
    give_up = time.monotonic() + WITHIN
    while not met():
        if not alive() or time.monotonic() > give_up:
            raise RuntimeError(f"it did not happen within {WITHIN:g} s: {said()}")
        time.sleep(LOOK)


def metric(http: httpx.Client, url: str, name: str) -> float:
    """Return the sum of a metric, over all labels, of the process that answers at ``url``."""
    lines = http.get(f"{url}/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def answers(url: str) -> bool:
    """Say whether something answers there, if only with a refusal."""
    try:
        return httpx.get(url, trust_env=False).status_code < 500
    except httpx.TransportError:
        return False
