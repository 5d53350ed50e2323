"""The life of a worker's process: it says "up" once the worker has joined its group, and ends with SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys

from gateway.worker import Worker
from tests.servers import eventually


async def until_told(worker: Worker, within: float) -> None:
    """Run ``worker``, which has so many seconds to be ready, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop), name="worker")
        await eventually(lambda: not worker.unready(), within=within)
        sys.stdout.write("up\n")
        sys.stdout.flush()
