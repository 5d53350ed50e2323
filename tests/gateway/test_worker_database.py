"""One worker with a database: what it does happens once, and what it emits leaves only with that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway import Context, Event, Rejected, Retry, Service
from gateway.core.delivery import emitted_id
from gateway.errors import Misconfigured, Unavailable
from gateway.sql import Database
from gateway.store import Outgoing, Row, Store
from gateway.worker import Worker
from tests.databases import KINDS, NewDatabase, new_database, postgres
from tests.gateway.test_worker import Order, Shop, shop
from tests.servers import eventually

TABLES = sa.MetaData()
STOCK = sa.Table("stock", TABLES, sa.Column("sku", sa.String(40), primary_key=True), sa.Column("n", sa.Integer))
DATABASE = Database(tables=TABLES)
FAST = Retry(3, first=0.01, most=0.02)

Handle = Callable[..., Awaitable[object]]


@pytest.fixture(scope="session", params=sorted(KINDS))
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with KINDS[request.param](tmp_path_factory.mktemp("worker-databases") / request.param) as new:
        yield new


def stock(handle: Handle, **how: Any) -> Service:
    made = Service("stock", emits=["shop/stock/#"], delays=["shop/orders/+/placed"], database=DATABASE)
    made.on("shop/orders/{order}/placed", **{"retry": FAST, **how})(handle)
    return made


@asynccontextmanager
async def working(one: Shop, url: str, **how: Any) -> AsyncIterator[tuple[Worker, Store]]:
    store = await DATABASE.open(url)
    try:
        async with one.worker(store=store, **how) as worker:
            yield worker, store
    finally:
        await store.close()


async def take(context: Context, order: Order) -> None:
    db = await context.transaction()
    sku = context.variables["order"]
    taken = await db.execute(STOCK.update().where(STOCK.c.sku == sku).values(n=STOCK.c.n + 1))
    if not taken.rowcount:
        await db.execute(STOCK.insert(), {"sku": sku, "n": 1})
    db.emit(f"shop/stock/{sku}/taken", order)


async def effects(store: Store) -> dict[str, int]:
    async with store.read() as db:
        return {row[0]: row[1] for row in await db.execute(sa.select(STOCK.c.sku, STOCK.c.n))}


async def outbox_empty(store: Store) -> bool:
    return (await store.due(1))[0] == []


async def test_the_effect_happens_once_however_often_the_event_comes(log_server: str, new_url: NewDatabase) -> None:
    async def handle(order: Order, context: Context) -> None:
        await take(context, order)

    async with shop(log_server, stock(handle)) as one, working(one, new_url("once")) as (_, store):
        await one.place(1, 2, 3)
        await eventually(one.at_rest)
        place = one.declared.find("shop/orders/7/placed").partition
        await one.log.groups.seek(place, "shop.stock", 0, void=True)  # all of it comes again
        await eventually(one.at_rest)
        await eventually(lambda: outbox_empty(store))
        assert await effects(store) == {"7": 3}
        emitted = [event.id for event in await one.emitted("shop/stock/7/taken")]
        assert emitted == [emitted_id(f"7-{n}", "shop.stock", 0) for n in (1, 2, 3)]


async def test_what_raises_leaves_nothing_behind(log_server: str, new_url: NewDatabase) -> None:
    async def handle(order: Order, context: Context) -> None:
        context.emit("shop/stock/7/taken", {"before": order.n})
        await take(context, order)
        if order.n == 1:
            raise Rejected("no")
        if order.n == 2 and context.attempt < 3:
            raise ValueError("not yet")

    async with shop(log_server, stock(handle)) as one, working(one, new_url("raises")) as (_, store):
        await one.place(1, 2)
        await eventually(one.at_rest)
        await eventually(lambda: outbox_empty(store))
        assert await effects(store) == {"7": 1}
        assert [event.data for event in await one.emitted("shop/stock/7/taken")] == [b'{"before":2}', b'{"n":2}']
        assert [letter.reason for letter in await one.letters()] == ["rejected"]


async def test_a_batch_is_one_transaction_and_skips_what_was_handled(log_server: str, new_url: NewDatabase) -> None:
    sizes: list[int] = []

    async def handle(orders: list[Order], contexts: list[Context]) -> None:
        sizes.append(len(orders))
        for order, context in zip(orders, contexts, strict=True):
            await take(context, order)

    service = stock(handle, batch=50)
    service.concurrency = 1
    async with shop(log_server, service) as one:
        for n in range(20):
            await one.place(1, order=f"o{n}")
        async with working(one, new_url("batch")) as (_, store):
            await eventually(one.at_rest)
            for place in one.log.partitions():
                await one.log.groups.seek(place, "shop.stock", 0, void=True)
            await one.place(2, order="o1")
            await eventually(one.at_rest)
            await eventually(lambda: outbox_empty(store))
            assert await effects(store) == {f"o{n}": 1 + (n == 1) for n in range(20)}
            assert max(sizes) > 1


async def test_a_delayed_event_comes_back_to_its_service(log_server: str, new_url: NewDatabase) -> None:
    came: dict[int, int] = {}

    async def handle(order: Order, context: Context) -> None:
        db = await context.transaction()
        if order.n == 1:
            db.later(0.2, "shop/orders/7/placed", Order(2))
        came[order.n] = context.event.meta.ts

    async with shop(log_server, stock(handle, expires=30.0)) as one, working(one, new_url("later")):
        await one.place(1, ts=time.time_ns() // 1_000_000)
        await eventually(lambda: 2 in came)
    assert came[2] >= came[1] + 200  # its age is counted from when it left


async def test_without_a_database_or_a_transaction_there_is_no_later(log_server: str) -> None:
    seen: list[str] = []

    async def handle(order: Order, context: Context) -> None:
        for ask in (lambda: context.later(1, "shop/stock/7/taken", order), context.transaction):
            try:
                made = ask()
                await made  # type: ignore[misc]  # one of them is no coroutine, and raises before
            except Misconfigured as error:
                seen.append(str(error))

    made = Service("stock", emits=["shop/stock/#"])
    made.on("shop/orders/{order}/placed")(handle)
    async with shop(log_server, made) as one, one.worker():
        await one.place(1)
        await eventually(one.at_rest)
    assert len(seen) == 2
    assert all("no database" in said for said in seen)


class _DiesBeforeItForgets:
    """A store whose process dies between the append and the delete, once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.deaths = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def sent(self, rows: list[Row]) -> None:
        if self.deaths:
            self.deaths -= 1
            raise Unavailable("it died")
        await self._store.sent(rows)


async def test_a_relay_that_dies_after_the_append_sends_the_same_again(log_server: str, tmp_path: Path) -> None:
    async def handle(order: Order, context: Context) -> None:
        await take(context, order)

    async with shop(log_server, stock(handle)) as one:
        store = await DATABASE.open(f"sqlite:///{tmp_path}/stock.db")
        async with one.worker(store=_DiesBeforeItForgets(store)):
            await one.place(1, 2)
            await eventually(one.at_rest)
            await eventually(lambda: outbox_empty(store))
        ids = [event.id for event in await one.emitted("shop/stock/7/taken")]
        await store.close()
        once = [emitted_id(f"7-{n}", "shop.stock", 0) for n in (1, 2)]
        assert sorted(set(ids)) == sorted(once)
        assert len(ids) > 2  # the control: the log has a double, which an inbox drops and nothing else
        assert ids[-1] == once[-1]


async def test_an_outbox_row_that_the_log_refuses_holds_up_nobody(log_server: str, tmp_path: Path) -> None:
    async def handle(order: Order, context: Context) -> None:
        await take(context, order)

    async with (
        shop(log_server, stock(handle)) as one,
        working(one, f"sqlite:///{tmp_path}/stock.db") as (worker, store),
    ):
        work = await store.begin()
        await work.put([Outgoing(Event("gone/x", b"{}", "x"))])
        await work.commit()
        await one.place(1)
        await eventually(lambda: outbox_empty(store))
        assert worker.relay is not None
        assert worker.relay.buried == 1
        await eventually(one.at_rest)
        assert len(await one.emitted("shop/stock/7/taken")) == 1


async def test_a_database_that_is_away_costs_no_event_its_life(log_server: str, tmp_path: Path) -> None:
    async def handle(order: Order, context: Context) -> None:
        await take(context, order)

    with postgres() as server:
        url = await asyncio.to_thread(new_database, server, "away")
        async with shop(log_server, stock(handle)) as one, working(one, url) as (worker, store):
            await one.place(1)
            await eventually(one.at_rest)
            await asyncio.to_thread(server.kill)
            await one.place(2, 3)
            await eventually(lambda: any("outbox" in why for why in worker.unready()))
            await asyncio.to_thread(server.start)
            await eventually(one.at_rest, within=60)
            await eventually(lambda: outbox_empty(store))
            assert await effects(store) == {"7": 3}
            assert await one.letters() == []
            assert len({event.id for event in await one.emitted("shop/stock/7/taken")}) == 3
