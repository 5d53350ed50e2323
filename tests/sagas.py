"""A shop of three services, and the saga that runs through them, for tests: on any log server, on any database.

An order whose name begins with a step's fails there: ``authorize-7`` is declined. The first card of ``card-7`` is
refused, which is no failure yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
import sqlalchemy as sa

from gateway import App, Context, Event, Retry, Service, Topic, limits
from gateway.adapters.log import AppLog, Log
from gateway.app import declare, services
from gateway.settings import Settings
from gateway.sql import Database, Saga, Step, Transaction
from gateway.store import Store
from gateway.worker import Worker
from tests.servers import eventually

PARTITIONS = limits.PARTITIONS
TABLES = sa.MetaData()
#: What a service did: ``done``, ``failed`` or ``undone``.
WORK = sa.Table(
    "work",
    TABLES,
    sa.Column("order", sa.String(40), primary_key=True),
    sa.Column("step", sa.String(40), primary_key=True),
    sa.Column("is", sa.String(10), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)
#: What the orders service knows: how each order ended, and how often it was told so.
ENDS = sa.Table(
    "ends",
    TABLES,
    sa.Column("order", sa.String(40), primary_key=True),
    sa.Column("how", sa.String(20), nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
)
DATABASE = Database(tables=TABLES)
FAST = Retry(5, first=0.01, most=0.05)


class Basket(msgspec.Struct, frozen=True):
    """What the saga of an order keeps."""

    sku: str
    payment: str = ""


class Authorized(msgspec.Struct, frozen=True):
    payment: str


def steps(within: float = 30.0) -> list[Step]:
    return [
        Step(
            "reserve",
            do="shop/stock/{order}/reserve",
            done="shop/stock/{order}/reserved",
            failed="shop/stock/{order}/short",
            undo="shop/stock/{order}/release",
            undone="shop/stock/{order}/released",
            within=within,
        ),
        Step(
            "authorize",
            do="shop/payments/{order}/authorize",
            done="shop/payments/{order}/authorized",
            failed="shop/payments/{order}/declined",
            undo="shop/payments/{order}/void",
            undone="shop/payments/{order}/voided",
            within=within,
        ),
        Step(
            "commit",
            do="shop/stock/{order}/commit",
            done="shop/stock/{order}/committed",
            failed="shop/stock/{order}/lost",
            within=within,
            pivot=True,
        ),
    ]


def takes(service: Service, step: Step) -> None:
    """Let ``service`` do ``step`` as a step is to be done: the second time as the first; undone is undone."""

    async def do(event: Event, context: Context) -> None:
        db = await context.transaction()
        order = context.variables["order"]
        where = (WORK.c.order == order, WORK.c.step == step.name)
        known = await db.scalar(sa.select(WORK.c["is"]).where(*where))
        if step.name == "authorize" and order.startswith("card"):
            context.emit(f"shop/payments/{order}/refused", {})
            return
        if known is None:
            known = "failed" if order.startswith(step.name) else "done"
            await db.execute(WORK.insert(), {"order": order, "step": step.name, "is": known, "payload": event.data})
        answer = step.done if known == "done" else step.failed
        context.emit(answer.replace("{order}", order), Authorized(f"payment of {order}"))

    async def undo(event: Event, context: Context) -> None:
        db = await context.transaction()
        order = context.variables["order"]
        known = await db.execute(
            WORK.update().where(WORK.c.order == order, WORK.c.step == step.name).values({"is": "undone"})
        )
        if not known.rowcount:
            row = {"order": order, "step": step.name, "is": "undone", "payload": event.data}
            await db.execute(WORK.insert(), row)
        context.emit(step.undone.replace("{order}", order), {})

    service.on(step.do, retry=FAST)(do)
    if step.undo:
        service.on(step.undo, retry=FAST)(undo)


async def on_fact(db: Transaction, turn: Saga.Turn) -> Basket | None:
    if (turn.step, turn.what) != ("authorize", "done"):
        return None
    return Basket(turn.data.sku, turn.fact(Authorized).payment)


async def on_end(db: Transaction, turn: Saga.Turn) -> None:
    again = ENDS.update().where(ENDS.c.order == turn.key).values(times=ENDS.c.times + 1)
    if not (await db.execute(again)).rowcount:
        await db.execute(ENDS.insert(), {"order": turn.key, "how": turn.phase, "times": 1})


class SagaShop:
    """The application: ``orders`` runs the saga, ``stock`` and ``payments`` take part."""

    def __init__(self, within: float = 30.0) -> None:
        listed = steps(within)
        self.checkout = Saga("checkout", of="shop.orders", key="order", steps=listed, data=Basket)
        orders = Service(
            "orders", database=DATABASE, emits=[*self.checkout.emits], delays=[*self.checkout.delays], concurrency=8
        )
        self.checkout.run_by(orders, on_fact=on_fact, on_end=on_end, retry=FAST)
        orders.on("shop/orders/{order}/placed", retry=FAST)(self._placed)
        orders.on("shop/payments/{order}/refused", retry=FAST)(self._refused)
        stock = Service("stock", database=DATABASE, emits=["shop/stock/{order}/" + what for what in _FACTS["stock"]])
        payments = Service(
            "payments", database=DATABASE, emits=["shop/payments/{order}/" + what for what in _FACTS["payments"]]
        )
        for step in listed:
            takes(payments if step.name == "authorize" else stock, step)
        self.services = {one.name: one for one in (orders, stock, payments)}
        # One key for all of an order's topics: what is asked in order is done in order.
        topics = [Topic(pattern=one, key="{order}") for one in self.checkout.plan.topics(*_VERBS)]
        topics += [Topic(pattern=f"shop/{one}", key="{order}") for one in ("orders/{order}/placed", _REFUSED)]
        self.app = App("shop", topics=[*topics, *self.checkout.topics], services=[orders, stock, payments])
        self.declared = declare(Settings(), [self.app])
        services(self.declared, [self.app])

    async def _placed(self, basket: Basket, context: Context) -> None:
        await self.checkout.start(await context.transaction(), context.variables["order"], basket)

    async def _refused(self, _: dict[str, str], context: Context) -> None:
        """The customer may try another card."""
        await self.checkout.extend(await context.transaction(), context.variables["order"], 60)

    @asynccontextmanager
    async def working(self, log_url: str, name: str, database: str) -> AsyncIterator[tuple[Worker, Store]]:
        """A worker of one of the services."""
        store = await DATABASE.open(database)
        log = await Log.open(log_url, [AppLog("shop", "fast")], partitions=PARTITIONS)
        worker = Worker(log, self.declared, f"shop.{name}", self.services[name], lease=2.0, beat=0.05, store=store)
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop), name=f"worker of {name}")
        try:
            await eventually(lambda: running.done() or not worker.unready(), within=60)
            yield worker, store
        finally:
            stop.set()
            await running
            await log.close()
            await store.close()


_VERBS = ("do", "done", "failed", "undo", "undone")
_REFUSED = "payments/{order}/refused"
_FACTS = {
    "stock": ("reserved", "short", "released", "committed", "lost"),
    "payments": ("authorized", "declined", "voided", "refused"),
}


class Running:
    """A shop at work, on one log and three databases."""

    def __init__(self, shop: SagaShop, log: Log, log_url: str, urls: dict[str, str], stack: AsyncExitStack) -> None:
        self.shop, self.log, self.urls = shop, log, urls
        self._log_url, self._stack = log_url, stack
        self.workers: dict[str, Worker] = {}
        self.stores: dict[str, Store] = {}

    async def up(self, *names: str) -> None:
        for name in names:
            opened = self.shop.working(self._log_url, name, self.urls[name])
            self.workers[name], self.stores[name] = await self._stack.enter_async_context(opened)

    async def start(self, *orders: str) -> None:
        for order in orders:
            async with self.workers["orders"].routed.transaction() as db:
                await self.shop.checkout.start(db, order, Basket("tea"))

    async def phase(self, order: str) -> str:
        async with self.stores["orders"].read() as db:
            found = await self.shop.checkout.state(db, order)
        return "" if found is None else found.phase

    async def ended(self, *orders: str) -> bool:
        return all([await self.phase(order) in ("completed", "compensated") for order in orders])

    async def work(self, order: str) -> dict[str, str]:
        """What the services say that they did."""
        did: dict[str, str] = {}
        for name in ("stock", "payments"):
            async with self.stores[name].read() as db:
                rows = await db.execute(sa.select(WORK.c.step, WORK.c["is"]).where(WORK.c.order == order))
                did |= {row[0]: row[1] for row in rows}
        return did

    async def ends(self) -> dict[str, tuple[str, int]]:
        async with self.stores["orders"].read() as db:
            return {row.order: (row.how, row.times) for row in await db.execute(sa.select(ENDS))}

    async def at_rest(self) -> bool:
        """Nothing waits to be handled or to leave, but what has to wait for its time."""
        for name in self.workers:
            states = [await self.log.groups.ask(place, f"shop.{name}") for place in self.log.partitions()]
            if any(state.lag or state.parked for state in states) or (await self.stores[name].due(1))[0]:
                return False
        return True


@asynccontextmanager
async def saga_shop(log_url: str, urls: dict[str, str], within: float = 30.0) -> AsyncIterator[Running]:
    log = await Log.open(log_url, [AppLog("shop", "fast")], partitions=PARTITIONS)
    tending = asyncio.create_task(log.run(), name="log")
    try:
        async with AsyncExitStack() as stack:
            yield Running(SagaShop(within), log, log_url, urls, stack)
    finally:
        tending.cancel()
        with suppress(asyncio.CancelledError):
            await tending
        await log.close()
