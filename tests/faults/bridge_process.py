"""A bridge in a process of its own, to be killed; and bridges that are broken on purpose.

``python -m tests.faults.bridge_process LOG_URL BROKER_URL KIND`` writes "up" when it is subscribed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import uvloop

from gateway.adapters.log import BridgeLease, Lease, Log
from gateway.adapters.mqtt import Message, Options
from gateway.bridge import Bridge, Inbound, Outbound
from gateway.bridge.outbound import Flight
from gateway.bridge.term import Term
from gateway.core.declared import Declared
from gateway.core.lanes import Changes
from gateway.errors import Fenced, GatewayError, NotAvailable
from tests.bridges import GROUP
from tests.faults.bridge_load import BOTH
from tests.gateways import app_logs
from tests.servers import GATEWAY, GATEWAY_PASSWORD, eventually

ROOT = Path(__file__).parents[2]


class AcknowledgesEarly(Inbound):
    """Acknowledges what it has read, before it is in the log."""

    def take(self, messages: list[Message]) -> None:
        super().take(messages)
        for message in messages:
            self._acknowledge(message)


class LetsGo(Bridge):
    """Drops what waits for the log when its broker goes away; fatal where it was acknowledged early."""

    def _disconnected(self, error: GatewayError) -> None:
        super()._disconnected(error)
        if self.inbound is not None:
            self.inbound.waiting.clear()


class ForgetsDeliveries(Inbound):
    """Does not ask the log, when it comes back, what it appended before."""

    async def recall(self, stop: asyncio.Event) -> None:
        return


class NewestFirst(Inbound):
    """Appends the newest of what waits first."""

    def take(self, messages: list[Message]) -> None:
        super().take(messages)
        for waiting in self.waiting.values():
            waiting.sort(key=lambda judged: -judged[0].arrival)


class MovesEarly(Outbound):
    """Moves its cursor when it has published, before the broker said anything."""

    def _publish(self, flight: Flight) -> None:
        super()._publish(flight)
        flight.answer = asyncio.get_running_loop().create_future()
        flight.answer.set_result(0)
        self._wake.set()


class NeverYields(Term):
    """Never doubts that the broker is its own to serve, whatever the log server says."""

    @property
    def fresh(self) -> bool:
        return True

    async def keep(self) -> NoReturn:
        while True:
            with suppress(Fenced):
                await super().keep()
            await asyncio.sleep(0.1)


class TakesCursors(Outbound):
    """Takes the cursors from whoever has them, and moves them without asking whether they are its own."""

    async def _lease(self) -> Lease | None:
        groups = self._by.log.groups
        with suppress(NotAvailable):
            await groups.seek(
                self.partition, self._by.group, (await groups.ask(self.partition, GROUP)).cursor, void=True
            )
        lease = await super()._lease()
        if lease is not None:
            lease.settle = lease.renew = self._unfenced  # type: ignore[method-assign,assignment]  # broken on purpose
        return lease

    async def _unfenced(self, changes: Changes | None = None, *_: object) -> None:
        if changes is not None:
            await self._by.log.groups.seek(self.partition, self._by.group, changes.cursor, void=True)


class Unfenced(Bridge):
    """Serves the broker whoever else does, under a client id of its own."""

    def __init__(self, log: Log, declared: Declared, options: Options) -> None:
        own = msgspec.structs.replace(options, client_id=f"bridge-{os.getpid()}")
        super().__init__(log, declared, own, outbound=TakesCursors, term=NeverYields)
        self._name = options.client_id

    async def _stand_by(self, stop: asyncio.Event) -> BridgeLease | None:
        return None if stop.is_set() else self.log.bridge_lease(self._name, self._worker, 60.0)


#: Name → how such a bridge is made.
KINDS: dict[str, Callable[..., Bridge]] = {
    "Bridge": Bridge,
    "LetsGo": functools.partial(LetsGo, inbound=AcknowledgesEarly),
    "MovesEarly": functools.partial(Bridge, outbound=MovesEarly),
    "NeverYields": functools.partial(Bridge, term=NeverYields),
    "Unfenced": Unfenced,
    **{
        kind.__name__: functools.partial(Bridge, inbound=kind)
        for kind in (AcknowledgesEarly, ForgetsDeliveries, NewestFirst)
    },
}


class BridgeProcess:
    """Started, killed and started again by a test."""

    def __init__(self, log_url: str, broker_url: str, kind: str = "Bridge") -> None:
        self._arguments = (log_url, broker_url, kind)
        self._child: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> BridgeProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self, *, wait: bool = True) -> None:
        program = (sys.executable, "-m", "tests.faults.bridge_process", *self._arguments)
        self._child = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        if wait:
            await self.up()

    async def up(self) -> None:
        if self._child is None or self._child.stdout is None:
            raise RuntimeError("it was not started")
        async with asyncio.timeout(30):
            said = await self._child.stdout.readline()
        if said != b"up\n":
            raise RuntimeError(f"the bridge ended with {await self._child.wait()}")

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError("it was not started")
        return self._child.pid

    async def kill(self) -> None:
        if self._child is not None:
            if self._child.returncode is None:
                self._child.kill()
            await self._child.wait()
            self._child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later


async def main(log_url: str, broker_url: str, kind: str) -> None:
    options = Options(broker_url, "bridge", username=GATEWAY, password=GATEWAY_PASSWORD)
    log = await Log.open(log_url, app_logs(BOTH))
    bridge, stop = KINDS[kind](log, Declared(BOTH), options), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(bridge.run(stop), name="bridge")
        await eventually(lambda: not bridge.unready(), within=30)
        sys.stdout.write("up\n")
        sys.stdout.flush()
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
