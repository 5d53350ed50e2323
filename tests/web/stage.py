"""What the pages are tried on: an edge, a service that rejects, one that rests, and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway import App, Context, Rejected, Service, Topic
from gateway.adapters.log import Log
from gateway.app import declare, services
from gateway.settings import Settings
from gateway.worker import Worker
from tests.gateways import Running, app_logs, running_edge, token
from tests.letters import door
from tests.servers import eventually, stream_server

TOPICS = (
    Topic(pattern="shop/orders/{order}/placed", key="{order}", write=("operator",), read=("operator",)),
    Topic(pattern="devices/{device}/telemetry", key="{device}", write=("operator",), read=("user", "operator")),
    Topic(pattern="rooms/{room}/messages", write=("user",), read=("user",)),
)
OPERATOR = token("mary", kind="operator")


class Order(msgspec.Struct):
    item: str


class Shop:
    """A running gateway with the service ``shop.stock``, which sells tea alone."""

    def __init__(self, edge: Running) -> None:
        self.edge = edge
        self.reserved: list[str] = []

    async def handle(self, order: Order, context: Context) -> None:
        if order.item != "tea":
            raise Rejected(f"we sell tea, not {order.item}")
        self.reserved.append(context.event.id)

    async def publish(self, topic: str, payload: object, id: str) -> None:
        async with door(self.edge) as http:
            answer = await http.post(f"/topics/{topic}", json=payload, headers={"Event-Id": id})
            assert answer.status_code == 201, answer.text

    async def order(self, id: str, item: str) -> None:
        await self.publish(f"shop/orders/{id}/placed", {"item": item}, id)

    async def letters(self) -> int:
        async with door(self.edge) as http:
            return len((await http.get("/dead")).json()["letters"])


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Shop]:
    with stream_server("valkey", folder) as server:
        async with running_edge(server.url, TOPICS) as edge:
            one, service = Shop(edge), Service("stock")
            service.on("shop/orders/{order}/placed")(one.handle)
            apps = [App("shop", topics=TOPICS[:1], services=[service])]
            declared = declare(Settings(), apps)
            services(declared, apps)
            log = await Log.open(server.url, app_logs(TOPICS[:1]))
            worker, stop = Worker(log, declared, "shop.stock", service, lease=2.0, beat=0.05), asyncio.Event()
            running = asyncio.create_task(worker.run(stop), name="worker")
            try:
                await eventually(lambda: running.done() or not worker.unready())
                yield one
            finally:
                stop.set()
                await running
                await log.close()
