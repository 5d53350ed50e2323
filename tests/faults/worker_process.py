"""A worker in a process of its own, to be killed.

``python -m tests.faults.worker_process LOG_URL SINK KIND NAME`` writes "up" when it has joined its group. Each effect
is one line of SINK, which all workers append to: event id, key, number, attempt. KIND: see `worker_broken`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import uvloop

from gateway import App, Context, Rejected, Retry, Service, Topic, limits
from gateway.adapters.log import AppLog, Log
from gateway.app import declare
from gateway.settings import Settings
from gateway.worker import Worker
from tests.faults.worker_broken import made_of, traced
from tests.faults.worker_until import until_told

ROOT = Path(__file__).parents[2]
PARTITIONS = 8
GROUP = "shop.stock"
#: Seconds; short, because faults wait for it.
LEASE = 1.0
#: Of each key every so-manieth event emits another.
EMITS_EVERY = 5


class Order(msgspec.Struct):
    n: int
    #: What the event does to its handler; nothing by default.
    does: str = ""


stock = Service("stock", emits=["shop/stock/{order}/taken"])


@stock.on("shop/orders/{order}/placed", retry=Retry(4, first=0.05, most=0.2), timeout=0.5)
async def take(order: Order, context: Context) -> None:
    match order.does:
        case "kill":
            os._exit(9)
        case "hang":
            await asyncio.sleep(3600)
        case "never":
            raise ValueError("never")
        case "wrong":
            raise Rejected("wrong")
        case "flaky" if context.attempt < 3:
            raise ValueError("not yet")
        case "slow":
            await asyncio.sleep(0.02)
    os.write(SINK, f"{context.event.id} {context.variables['order']} {order.n} {context.attempt}\n".encode())
    if order.n % EMITS_EVERY == 0:
        context.emit(f"shop/stock/{context.variables['order']}/taken", {"n": order.n})


APP = App(
    "shop",
    topics=[
        Topic(pattern="shop/orders/{order}/placed", key="{order}"),
        Topic(pattern="shop/stock/{order}/taken", key="{order}"),
    ],
    services=[stock],
)
DECLARED = declare(Settings(), [APP])
SINK = -1


class WorkerProcess:
    """Started, stopped, killed and started again by a test; a new name at each start."""

    def __init__(
        self, log_url: str, sink: Path, kind: str, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = (log_url, str(sink), kind)
        self._name, self._lives = name, 0
        self._environment = {**os.environ, **(environment or {})}
        self.child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._lives += 1
        program = (sys.executable, "-m", "tests.faults.worker_process", *self._arguments, self.name)
        self.child = await asyncio.create_subprocess_exec(
            *program, cwd=ROOT, env=self._environment, stdout=asyncio.subprocess.PIPE
        )

    async def up(self) -> None:
        if self.child is None or self.child.stdout is None:
            raise RuntimeError("it was not started")
        async with asyncio.timeout(60):
            said = await self.child.stdout.readline()
        if said != b"up\n":
            raise RuntimeError(f"the worker ended with {await self.child.wait()}")

    @property
    def name(self) -> str:
        return f"{self._name}.{self._lives}"

    @property
    def most_memory(self) -> int:
        """The most bytes that it ever had in memory (proc(5), VmHWM)."""
        if self.child is None:
            return 0
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def send(self, number: signal.Signals) -> None:
        if self.child is not None and self.child.returncode is None:
            self.child.send_signal(number)

    async def gone(self) -> int:
        """Wait for its end."""
        if self.child is None:
            return 0
        async with asyncio.timeout(60):
            code = await self.child.wait()
        self.child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later
        return code

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.gone()


async def main(log_url: str, sink: str, kind: str, name: str) -> None:
    global SINK
    logging.basicConfig(level="ERROR")
    SINK = os.open(sink, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    limits.WORKER_SILENT = 2 * LEASE  # type: ignore[misc]  # shorter for tests
    traced()
    holding = made_of(kind)
    log = await Log.open(log_url, [AppLog("shop")], partitions=PARTITIONS)
    worker = Worker(log, DECLARED, GROUP, stock, name=name, lease=LEASE, beat=0.1)
    worker.holding = holding
    await until_told(worker, within=60)
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
