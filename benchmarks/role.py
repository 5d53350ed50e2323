"""One process of the gateway under measurement: ``python -m benchmarks.role edge|bridge FOLDER``."""

from __future__ import annotations

import asyncio
import cProfile
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from benchmarks.machine import PROFILE
from benchmarks.topics import TOPICS
from gateway import limits
from gateway.adapters import http
from gateway.adapters.listening import listen
from gateway.adapters.log import AppLog, Log
from gateway.adapters.mqtt import Options
from gateway.adapters.tokens import Verifier
from gateway.bridge import Bridge
from gateway.core.declared import Declared
from gateway.edge.process import Edge
from gateway.settings import KeyTable, Settings, TokensTable


class Addresses(msgspec.Struct, frozen=True):
    """What a role needs to know, as ``addresses.json`` in its folder."""

    log: str
    edge_port: int
    secret_file: str
    #: Of a key ``bench`` of EdDSA; empty without.
    key_file: str = ""
    broker: str = ""
    broker_password: str = ""
    health_port: int = 0
    #: Seconds between two pings of the protocol to a client; 0: as users have it.
    ping_every: float = 0.0


class _Health:
    def __init__(self, bridge: Bridge) -> None:
        self.unready = bridge.unready
        self.metrics = bridge.metrics.render


async def _edge(at: Addresses, declared: Declared, log: Log, stop: asyncio.Event) -> None:
    key = KeyTable(id="bench", algorithm="EdDSA", file=at.key_file, issuer="bench", audience="bench")
    keys = (key,) if at.key_file else ()
    if at.ping_every:
        setattr(limits, "PING_EVERY", at.ping_every)  # noqa: B010 - a bound is no setting
    verifier = Verifier(Settings(tokens=TokensTable(hs256_secret_file=at.secret_file, keys=keys)))
    await Edge(log, declared, verifier).run("127.0.0.1", at.edge_port, stop)


async def _bridge(at: Addresses, declared: Declared, log: Log, stop: asyncio.Event) -> None:
    options = Options(url=at.broker, client_id="bench-bridge", username="gateway", password=at.broker_password)
    bridge = Bridge(log, declared, options)
    server = http.server(http.health(_Health(bridge)), drain=1.0)
    serving = asyncio.create_task(server.serve([listen("127.0.0.1", at.health_port)]), name="health")
    await bridge.run(stop)
    server.should_exit = True
    await serving


async def _run(role: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    at = msgspec.json.decode((folder / "addresses.json").read_bytes(), type=Addresses)
    declared = Declared(TOPICS)
    log = await Log.open(at.log, [AppLog(app) for app in declared.apps])
    try:
        await {"edge": _edge, "bridge": _bridge}[role](at, declared, log, stop)
    finally:
        await log.close()


def main(role: str, folder: str) -> None:
    profile = cProfile.Profile() if os.environ.get(PROFILE) else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if profile is None:
            runner.run(_run(role, Path(folder)))
            return
        profile.runcall(runner.run, _run(role, Path(folder)))
    profile.dump_stats(f"{os.environ[PROFILE]}.{role}")


if __name__ == "__main__":
    main(*sys.argv[1:])
