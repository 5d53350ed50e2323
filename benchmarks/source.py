"""Events for the fan-out, appended at a rate: ``python -m benchmarks.source LOG_URL RATE BATCH SECONDS``."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from benchmarks.topics import TOPICS, WATCHED, payload
from gateway.adapters.identity import new_id
from gateway.adapters.log import AppLog, Log
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event, Meta


async def _append(url: str, rate: float, batch: int, seconds: float) -> None:
    declared = Declared(TOPICS)
    found = declared.find(WATCHED)
    log = await Log.open(url, [AppLog(app) for app in declared.apps])
    writing = asyncio.create_task(log.run(), name="log")
    began = due = time.monotonic()
    sequence = 0
    while (now := time.monotonic()) < began + seconds:
        if due > now:
            await asyncio.sleep(due - now)
        # A late one is left out, not made up for: two at once would be joined into one write.
        due = max(due + 1 / rate, time.monotonic())
        ts = int(time.time() * 1000)
        drafts = []
        for _ in range(batch):
            meta = Meta(ts=ts, producer="mqtt", via="mqtt")
            drafts.append(Draft(Event(WATCHED, payload(sequence), new_id(), meta), found.key))
            sequence += 1
        answers = await log.append(found.partition, drafts, patient=True)
        assert not any(isinstance(answer, Exception) for answer in answers), answers
    writing.cancel()
    await asyncio.wait([writing])
    await log.close()


if __name__ == "__main__":
    uvloop.run(_append(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
