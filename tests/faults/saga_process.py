"""A worker of one service of the saga's shop in a process of its own, to be killed.

``python -m tests.faults.saga_process LOG_URL SERVICE DATABASE_URL`` writes "up" when it has joined its group.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from gateway import limits
from tests.sagas import SagaShop

ROOT = Path(__file__).parents[2]
#: Seconds for the answer of a step: about what a killed worker takes to be back, so that some are late.
WITHIN = 3.0


class SagaProcess:
    """Started, killed and started again by a test."""

    def __init__(self, log_url: str, service: str, database: str) -> None:
        self._arguments = (log_url, service, database)
        self.child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = (sys.executable, "-m", "tests.faults.saga_process", *self._arguments)
        self.child = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.child is None:
            return
        if self.child.returncode is None:
            self.child.send_signal(number)
        async with asyncio.timeout(60):
            await self.child.wait()
        self.child._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed with a warning, later

    async def up(self) -> None:
        if self.child is None or self.child.stdout is None:
            raise RuntimeError("it was not started")
        async with asyncio.timeout(60):
            if await self.child.stdout.readline() != b"up\n":
                raise RuntimeError(f"it ended with {await self.child.wait()}")


async def main(log_url: str, service: str, database: str) -> None:
    logging.basicConfig(level="ERROR")
    limits.WORKER_SILENT = 2.0  # type: ignore[misc]  # shorter for tests
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with SagaShop(WITHIN).working(log_url, service, database):
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
