"""A real broker whose accounts the registry keeps, and a bridge from it into the fleet's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from devices.app import app
from gateway import limits as bounds
from gateway.adapters.child import Server
from gateway.adapters.decoders import BUILT_IN
from gateway.adapters.log import AppLog, Log
from gateway.adapters.mqtt import Options
from gateway.bridge import Bridge
from gateway.core.declared import Declared
from tests import servers
from tests.deploy.mqtt_clients import Peer, Refused
from tests.devices.fleet import WITHIN, Fleet
from tests.servers import eventually

WORD = "a gateway of the tests"


class Broker:
    """A broker that runs, and the folder of its files."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def peer(self, name: str, word: str) -> Peer:
        return Peer("127.0.0.1", name, word, port=self.port)

    async def enters(self, name: str, word: str) -> Peer:
        """Return a connection, once the broker was told."""
        found: list[Peer] = []

        def tried() -> bool:
            try:
                found.append(self.peer(name, word))
            except Refused:
                return False
            return True

        async def come() -> bool:
            return await asyncio.to_thread(tried)

        await eventually(come, within=WITHIN)
        return found[0]


@contextmanager
def broker_of_the_registry(folder: Path) -> Iterator[Broker]:
    with servers.broker(folder, {"gateway": WORD}) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVICES_BROKER_FOLDER", str(folder))
        yield Broker(server, folder)


@asynccontextmanager
async def bridged(fleet: Fleet, broker: Broker) -> AsyncIterator[None]:
    """A bridge runs inside the block."""
    declared = Declared(app.topics, bounds.TEST_PARTITIONS)
    log = await Log.open(fleet.gateway._log_url, [AppLog("devices")], partitions=bounds.TEST_PARTITIONS)
    known = {**BUILT_IN, **app.decoders}
    bridge = Bridge(log, declared, Options(broker.server.url, "bridge", "gateway", WORD), decoders=known)
    stop = asyncio.Event()
    running = asyncio.create_task(bridge.run(stop), name="bridge")
    try:
        await eventually(lambda: running.done() or not bridge.unready(), within=WITHIN)
        yield
    finally:
        stop.set()
        await running
        await log.close()
