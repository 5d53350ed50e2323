"""A worker in a process of its own that dies between its commit and its reply.

``python -m tests.faults.reply_process LOG_URL DATABASE_URL SINK DIES`` writes "up" when it has joined its group; an
empty DATABASE_URL is none. Each run of the handler is one line of SINK. DIES is ``commit``: SIGKILL once the
transaction is committed and before the reply leaves; ``stored``: once the reply is stored and before it is announced;
else it lives.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from gateway import App, Context, Service, Topic, limits
from gateway.adapters.log import Log, replies
from gateway.app import declare
from gateway.settings import Settings
from gateway.sql import Database
from gateway.worker import Worker
from gateway.worker.answers import Answers
from tests.faults.worker_until import until_told
from tests.gateways import app_logs
from tests.journeys.shop import TOPICS, Order

ROOT = Path(__file__).parents[2]
LEASE = 1.0
SINK = -1
KEPT = True

stock = Service("stock", database=Database())
#: Where a device hears the answer to an order that it placed by MQTT.
ANSWERS = Topic(pattern="shop/answers/{device}", read=("device:{device}",), mqtt="out")
APP = App("shop", topics=[*TOPICS, ANSWERS], services=[stock])
DECLARED = declare(Settings(), [APP])


@stock.on("shop/orders/{order}/reserve")
async def reserve(order: Order, context: Context) -> dict[str, int]:
    if KEPT:
        await context.transaction()
    os.write(SINK, f"{context.event.id}\n".encode())
    return {"pid": os.getpid()}


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def started(log_url: str, database: str, sink: Path, dies: str = "") -> asyncio.subprocess.Process:
    """A worker that has joined its group."""
    program = (sys.executable, "-m", "tests.faults.reply_process", log_url, database, str(sink), dies)
    child = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    if child.stdout is None:
        raise RuntimeError("it has no output")
    async with asyncio.timeout(60):
        said = await child.stdout.readline()
    if said != b"up\n":
        raise RuntimeError(f"the worker ended with {await child.wait()}")
    return child


async def main(log_url: str, database: str, sink: str, dies: str) -> None:
    global SINK, KEPT
    KEPT = bool(database)
    logging.basicConfig(level="ERROR")
    SINK = os.open(sink, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    limits.WORKER_SILENT = 2 * LEASE  # type: ignore[misc]  # shorter for tests
    if dies == "commit":
        Answers.send = _die  # type: ignore[assignment]  # it does not return
    if dies == "stored":
        replies.ANNOUNCE.call = _die  # type: ignore[assignment, method-assign]  # it does not return either
    log = await Log.open(log_url, app_logs(TOPICS))
    store = await Database().open(database) if KEPT else None
    worker = Worker(log, DECLARED, "shop.stock", stock, lease=LEASE, beat=0.1, store=store)
    await until_told(worker, within=60)
    if store is not None:
        await store.close()
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
