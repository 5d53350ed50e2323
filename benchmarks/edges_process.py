"""An edge of the `edges` benchmark, or what it reads: ``python -m benchmarks.edges_process edge|source FOLDER``."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from itertools import count
from pathlib import Path

import msgspec
import uvloop

from benchmarks.topics import TOPICS, payload
from gateway.adapters.identity import new_id
from gateway.adapters.log import AppLog, Log
from gateway.adapters.tokens import Verifier
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event, Meta, Partition
from gateway.edge.process import Edge
from gateway.settings import Settings, TokensTable

_TOPIC = "try/bench/t%05d"


class Task(msgspec.Struct, frozen=True):
    """What one process needs to know, as ``task.json`` in its folder."""

    log: str
    partitions: int
    #: Of an edge.
    port: int = 0
    secret_file: str = ""
    #: Of the source: topics that take turns, events per second, and how many are appended at once.
    topics: int = 0
    rate: float = 0.0
    batch: int = 0


async def _edge(task: Task, declared: Declared, log: Log, stop: asyncio.Event) -> None:
    verifier = Verifier(Settings(tokens=TokensTable(hs256_secret_file=task.secret_file)))
    await Edge(log, declared, verifier).run("127.0.0.1", task.port, stop)


async def _source(task: Task, declared: Declared, log: Log, stop: asyncio.Event) -> None:
    writing = asyncio.create_task(log.run(), name="log")
    found = [declared.find(_TOPIC % n) for n in range(task.topics)]
    numbers, due = count(), time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due = max(due + task.batch / task.rate, time.monotonic())
        drafts: dict[Partition, list[Draft]] = {}
        for _ in range(task.batch):
            n = next(numbers)
            topic = _TOPIC % (n % task.topics)
            at = found[n % task.topics]
            meta = Meta(ts=int(time.time() * 1000), producer="mqtt", via="mqtt")
            drafts.setdefault(at.partition, []).append(Draft(Event(topic, payload(n), new_id(), meta), at.key))
        await asyncio.gather(*(log.append(place, some, patient=True) for place, some in drafts.items()))
    writing.cancel()
    await asyncio.wait([writing])


async def _run(role: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    task = msgspec.json.decode((folder / "task.json").read_bytes(), type=Task)
    declared = Declared(TOPICS, task.partitions)
    log = await Log.open(task.log, [AppLog(app) for app in declared.apps], partitions=task.partitions)
    try:
        await {"edge": _edge, "source": _source}[role](task, declared, log, stop)
    finally:
        await log.close()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], Path(sys.argv[2])))
