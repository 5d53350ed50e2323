"""The peer that is there for everybody: ``python -m benchmarks.broadcast PORT RATE``, `websockets` on uvloop.

With a rate of 0 it sends nothing but its own pings.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.topics import payload


async def _serve(port: int, rate: float) -> None:
    clients: set[ServerConnection] = set()

    async def watch(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async with serve(watch, "127.0.0.1", port, compression=None, ping_interval=None if rate else 20):
        if not rate:
            await asyncio.Event().wait()
        due, sequence = time.monotonic(), 0
        while True:
            due = max(due + 1 / rate, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            broadcast(clients, payload(sequence).decode())
            sequence += 1


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
