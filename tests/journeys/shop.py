"""A shop that answers: edges, and workers of a service whose handler returns a reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from gateway import App, Context, Rejected, Retry, Service, Topic
from gateway.adapters.log import Log
from gateway.app import declare, services
from gateway.settings import Settings
from gateway.worker import Worker
from tests.gateways import Running, app_logs, running_edge, token
from tests.servers import eventually

TOPICS = [
    Topic(pattern="shop/orders/{order}/reserve", kind="command", write=("user",), read=("operator",)),
    Topic(pattern="shop/nobody/{order}", kind="command", write=("user",)),
    Topic(pattern="shop/progress/{order}", write=("user",), ephemeral=True),
    Topic(pattern="shop/secret/{order}", kind="command", write=("operator",)),
]
HANG = 30.0


class Order(msgspec.Struct):
    item: str
    n: int = 0


class Counter:
    """The service's handler, which counts how often it ran, and waits where it is told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        #: Open: "slow" orders go on.
        self.gate = asyncio.Event()
        self.service = Service("stock")
        self.service.on("shop/orders/{order}/reserve", retry=Retry(2, first=0.01, most=0.02))(self.reserve)

    async def reserve(self, order: Order, context: Context) -> dict[str, Any] | None:
        self.ran.append(context.event.id)
        match order.item:
            case "coffee":
                raise Rejected("we sell tea")
            case "poison":
                raise ValueError("the password is swordfish")
            case "slow":
                await self.gate.wait()
            case "nothing":
                return None
        return {"order": context.variables["order"], "n": order.n}


@asynccontextmanager
async def working(log_url: str, counter: Counter) -> AsyncIterator[Worker]:
    """One worker of the shop's service."""
    async with serving(log_url, App("shop", topics=TOPICS, services=[counter.service])) as worker:
        yield worker


@asynccontextmanager
async def serving(log_url: str, app: App) -> AsyncIterator[Worker]:
    """One worker of the one service of ``app``."""
    declared = declare(Settings(), [app])
    ((group, service),) = services(declared, [app]).items()
    log = await Log.open(log_url, app_logs(app.topics))
    worker = Worker(log, declared, group, service, lease=2.0, beat=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop), name="worker")
    try:
        await eventually(lambda: running.done() or not worker.unready())
        yield worker
    finally:
        stop.set()
        await running
        await log.close()


class Door:
    """One edge, asked over HTTP as ``who``."""

    def __init__(self, edge: Running, http: httpx.AsyncClient) -> None:
        self.edge, self.http = edge, http

    async def ask(
        self, item: str, key: str = "", *, n: int = 0, wait: str | None = "20s", who: str = "alice", order: str = "7"
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(who)}"} | ({"Idempotency-Key": key} if key else {})
        params = {"wait": wait} if wait is not None else {}
        body = {"item": item, "n": n}
        return await self.http.post(f"/topics/shop/orders/{order}/reserve", json=body, headers=headers, params=params)

    @property
    def waiting(self) -> int:
        return len(self.edge.edge.requests)


@asynccontextmanager
async def door(log_url: str) -> AsyncIterator[Door]:
    async with (
        running_edge(log_url, TOPICS) as edge,
        httpx.AsyncClient(base_url=edge.http, timeout=HANG, headers={"Authorization": f"Bearer {token()}"}) as http,
    ):
        yield Door(edge, http)
