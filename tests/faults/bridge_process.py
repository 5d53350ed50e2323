"""A bridge in a process of its own, to be killed; and bridges that are broken on purpose.

``python -m tests.faults.bridge_process LOG_URL BROKER_URL KIND`` writes "up" when it is subscribed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from gateway.adapters.log import Log
from gateway.adapters.mqtt import Message, Options
from gateway.bridge import Bridge
from gateway.core.declared import Declared
from gateway.errors import GatewayError
from tests.gateways import TOPICS, app_logs
from tests.servers import GATEWAY, GATEWAY_PASSWORD, eventually

ROOT = Path(__file__).parents[2]


class AcknowledgesEarly(Bridge):
    """Acknowledges what it has read, before it is in the log."""

    def _take(self, messages: list[Message]) -> None:
        super()._take(messages)
        for message in messages:
            self._acknowledge(message)


class LetsGo(AcknowledgesEarly):
    """Acknowledges early, and drops what waits for the log when its broker goes away."""

    def _disconnected(self, error: GatewayError) -> None:
        super()._disconnected(error)
        self._waiting.clear()


class ForgetsDeliveries(Bridge):
    """Does not ask the log, when it comes back, what it appended before."""

    async def _recall(self, stop: asyncio.Event) -> None:
        return


class NewestFirst(Bridge):
    """Appends the newest of what waits first."""

    def _take(self, messages: list[Message]) -> None:
        super()._take(messages)
        for waiting in self._waiting.values():
            waiting.sort(key=lambda judged: -judged[0].arrival)


KINDS: dict[str, type[Bridge]] = {
    kind.__name__: kind for kind in (Bridge, AcknowledgesEarly, LetsGo, ForgetsDeliveries, NewestFirst)
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

    async def kill(self) -> None:
        if self._child is not None:
            if self._child.returncode is None:
                self._child.kill()
            await self._child.wait()
            self._child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later


async def main(log_url: str, broker_url: str, kind: str) -> None:
    options = Options(broker_url, "bridge", username=GATEWAY, password=GATEWAY_PASSWORD)
    log = await Log.open(log_url, app_logs(TOPICS))
    bridge, stop = KINDS[kind](log, Declared(TOPICS), options), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(bridge.run(stop), name="bridge")
        await eventually(lambda: not bridge.unready(), within=30)
        sys.stdout.write("up\n")
        sys.stdout.flush()
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
