"""The door of tests, tested: facts are waited for, failures explain, services go and come back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import App, Context, Event, Rejected, Retry, Service, Topic
from gateway.errors import BadPayload, Denied, Misconfigured, NotDeclared, Refused
from gateway.sql import Database, reading, transaction
from gateway.testing import DidNotHappen, Gateway, running
from gateway.web import answer, body, principal
from gateway.worker import Worker
from tests.databases import postgresql
from tests.gateways import client

TABLES = sa.MetaData()
STOCK = sa.Table("stock", TABLES, sa.Column("item", sa.String(40), primary_key=True), sa.Column("n", sa.Integer))
TOPICS = [
    Topic(pattern="shop/orders/{order}/placed", key="{order}", write=("user",)),
    Topic(pattern="shop/orders/{order}/reserved", key="{order}", read=("user",)),
    Topic(pattern="shop/orders/{order}/refused", key="{order}"),
    Topic(pattern="shop/notes/{note}", payload="text"),
    Topic(pattern="shop/raw/{n}", payload="bytes"),
    Topic(pattern="shop/typing/{who}", ephemeral=True),
]


class Order(msgspec.Struct):
    item: str


async def place(request: Request) -> Response:
    principal(request, "user")
    order = await body(request, Order)
    async with transaction(request) as db:
        db.emit("shop/orders/9/placed", order)
    return answer({}, 202)


async def left(request: Request) -> Response:
    async with reading(request) as db:
        return answer(await db.scalar(sa.select(STOCK.c.n).where(STOCK.c.item == request.path_params["item"])))


def shop() -> App:
    """Orders that take from a stock; coffee is rejected, water fails, juice hangs, and milk fails once."""
    orders = Service(
        "orders", emits=["shop/orders/+/placed"], routes=[Route("/", place, methods=["POST"])], database=Database()
    )
    stock = Service(
        "stock",
        emits=["shop/orders/+/reserved", "shop/orders/+/refused"],
        database=Database(tables=TABLES),
        routes=[Route("/{item}", left)],
    )

    @stock.on("shop/orders/{order}/placed", retry=Retry(3, first=0.01, most=0.02))
    async def take(order: Order, context: Context) -> None:
        if order.item == "coffee":
            raise Rejected("we sell tea")
        if order.item == "water" or (order.item == "milk" and context.attempt == 1):
            raise ValueError(f"no {order.item}")
        if order.item == "juice":
            await asyncio.Event().wait()
        db = await context.transaction()
        left = await db.scalar(sa.select(STOCK.c.n).where(STOCK.c.item == order.item)) or 0
        if left:
            await db.execute(STOCK.update().where(STOCK.c.item == order.item).values(n=left - 1))
        db.emit(f"shop/orders/{context.variables['order']}/{'reserved' if left else 'refused'}", order)

    return App("shop", TOPICS, services=[orders, stock])


def simple(handle: Any, pattern: str = "shop/orders/+/placed", **how: Any) -> App:
    one = Service("one", emits=["shop/orders/+/reserved"], **how)
    one.on(pattern)(handle)
    return App("shop", TOPICS, services=[one])


async def stocked(gateway: Gateway, item: str, n: int) -> None:
    async with gateway.database("shop.stock") as db:
        await db.execute(STOCK.insert(), {"item": item, "n": n})


async def left_of(gateway: Gateway, item: str) -> int:
    async with gateway.database("shop.stock") as db:
        found: int = await db.scalar(sa.select(STOCK.c.n).where(STOCK.c.item == item))
        return found


async def test_an_event_leads_to_another_and_to_what_is_kept() -> None:
    async with running(shop()) as gateway:
        await stocked(gateway, "tea", 5)
        id = await gateway.publish("shop/orders/7/placed", Order("tea"), headers={"a": "b"})
        event = await gateway.event("shop/orders/7/reserved")
        assert event.json() == {"item": "tea"}
        assert event.json(Order) == Order("tea")
        assert event.meta.cause == id
        await gateway.at_rest()
        assert await left_of(gateway, "tea") == 4
        assert await gateway.dead_letters() == []
        assert [event.topic for event in await gateway.events("shop/#")] == [
            "shop/orders/7/placed",
            "shop/orders/7/reserved",
        ]


async def test_events_of_a_key_come_in_order_and_are_waited_for_by_number() -> None:
    async with running(shop()) as gateway:
        for n in range(20):
            await gateway.publish("shop/orders/7/placed", {"item": f"tea {n}"})
        refused = await gateway.events("shop/orders/+/refused", 20)
        assert [event.json()["item"] for event in refused] == [f"tea {n}" for n in range(20)]


async def test_every_kind_of_payload_and_what_is_not_kept() -> None:
    async with running(App("shop", TOPICS)) as gateway:
        await gateway.publish("shop/notes/1", "grüße")
        await gateway.publish("shop/raw/1", b"\xff\x00")
        await gateway.publish("shop/typing/ann", {"now": True})
        assert (await gateway.event("shop/notes/1")).data == "grüße".encode()
        assert (await gateway.event("shop/raw/+")).data == b"\xff\x00"
        assert (await gateway.event("shop/typing/ann")).json() == {"now": True}
        await gateway.at_rest()


async def test_a_new_service_that_begins_with_the_latest_event_misses_none_of_the_test() -> None:
    seen: list[str] = []

    async def handle(event: Event, context: Context) -> None:
        seen.append(event.topic)

    async with running(simple(handle, start="latest")) as gateway:
        await gateway.publish("shop/orders/7/placed", {})
        await gateway.at_rest()
    assert seen == ["shop/orders/7/placed"]


async def test_rights_count_for_who_is_named() -> None:
    async with running(shop()) as gateway:
        await gateway.publish("shop/orders/7/placed", Order("milk"), by="user:ann")
        assert (await gateway.event("shop/orders/7/placed")).meta.producer == "user:ann"
        with pytest.raises(Denied):
            await gateway.publish("shop/orders/7/placed", Order("milk"), by="device:pump")
        with pytest.raises(Refused, match="is no principal"):
            await gateway.publish("shop/orders/7/placed", Order("milk"), by="ann")
        with pytest.raises(BadPayload):
            await gateway.publish("shop/orders/7/placed", b"{")
        with pytest.raises(NotDeclared):
            await gateway.publish("shop/oders/7/placed", {})


# --- failures explain ---


async def test_an_event_that_does_not_come_is_explained() -> None:
    async with running(shop()) as gateway:
        await gateway.publish("shop/orders/1/placed", Order("coffee"))
        await gateway.publish("shop/orders/2/placed", Order("water"))
        await gateway.publish("shop/orders/3/placed", Order("tea"))
        await gateway.event("shop/orders/3/refused")
        await gateway.at_rest()
        with pytest.raises(DidNotHappen) as failed:
            await gateway.event("shop/orders/2/reserved", within=0.05)
        with pytest.raises(DidNotHappen) as other:
            await gateway.events("shop/orders/+/refused", 2, within=0.05)
    told = str(failed.value)
    assert told.startswith("no event under 'shop/orders/2/reserved' came within 0.05 s\n")
    assert "came under shop/orders/{order}/reserved: nothing\ncame elsewhere:\n" in told
    assert 'shop/orders/1/placed {"item":"coffee"}: given up by shop.stock, rejected: we sell tea (File "' in told
    assert "gave_up: ValueError: no water" in told
    assert "test_testing.py" in told
    assert told.count("ValueError: no water (tests/gateway/test_testing.py:") == 3, "each delivery is told"
    assert "shop.stock: has handled all there is" in told
    told = str(other.value)
    assert told.startswith("1 of 2 events under 'shop/orders/+/refused' came within 0.05 s\n")
    assert 'came under shop/orders/{order}/refused:\n  shop/orders/3/refused {"item":"tea"}' in told


async def test_what_does_not_come_to_rest_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    raised = asyncio.Event()

    async def handle(event: Event, context: Context) -> None:
        if event.data == b'"hangs"':
            await asyncio.Event().wait()
        raised.set()
        raise ValueError("not today")

    service = Service("one")
    service.on("shop/orders/+/placed", retry=Retry(2, first=60, most=60))(handle)
    async with running(App("shop", TOPICS, services=[service])) as gateway:
        await gateway.publish("shop/orders/1/placed", {})
        await raised.wait()
        with pytest.raises(DidNotHappen, match=r"did not come to rest within 0\.5 s") as failed:
            await gateway.at_rest(within=0.5)
        await gateway.publish("shop/orders/2/placed", b'"hangs"')
        with pytest.raises(DidNotHappen, match=r"shop\.one: handlers run for key 2; in "):
            await gateway.at_rest(within=0.5)
    assert "1 wait for another try" in str(failed.value)
    assert "shop.one on shop/orders/1/placed, delivery 1: ValueError: not today" in str(failed.value)
    assert 'raise ValueError("not today")' in caplog.text, "with its traceback"


async def test_what_can_never_come_is_refused_at_once() -> None:
    async with running(shop()) as gateway:
        with pytest.raises(NotDeclared):
            await gateway.event("shop/oders/+/reserved", within=60)
        with pytest.raises(Misconfigured, match=r"there is no service 'shop.stok'; there are: shop.orders, shop.stock"):
            gateway.database("shop.stok")
        with pytest.raises(Misconfigured, match="no edge"):
            gateway.client()


async def test_what_cannot_run_says_so_plainly() -> None:
    async def handle(event: Event, context: Context) -> None: ...

    with pytest.raises(Misconfigured, match="meets no declared topic"):
        async with running(simple(handle, "shop/never/+")):
            pass
    with pytest.raises(Misconfigured, match="a database's URL begins with 'mysql'"):
        async with running(shop(), databases={"shop.stock": "mysql://nowhere"}):
            pass
    with pytest.raises(Misconfigured, match="there is no service"):
        async with running(shop(), databases={"shop.stok": "sqlite:///nowhere"}):
            pass


async def test_what_ends_the_gateway_is_raised_by_what_is_asked_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    async def test() -> None:
        async with running(shop()) as gateway:
            monkeypatch.setattr(Worker, "_ask", broken)
            await gateway.event("shop/orders/7/placed", within=30)

    for _ in range(2):  # while it runs, and while it starts
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            await test()


# --- services that go and come back ---


async def test_a_service_that_was_away_catches_up() -> None:
    async with running(shop()) as gateway:
        async with gateway.away("shop.stock"):
            await gateway.publish("shop/orders/7/placed", Order("tea"))
            await gateway.at_rest()
            with pytest.raises(DidNotHappen, match=r"shop\.stock is away"):
                await gateway.event("shop/orders/7/refused", within=0.05)
        await gateway.event("shop/orders/7/refused")


async def test_what_a_killed_service_had_in_hand_comes_again_and_happens_once() -> None:
    reached, held = asyncio.Event(), [True]
    service = Service("one", emits=["shop/orders/+/reserved"], database=Database(tables=TABLES))

    @service.on("shop/orders/+/placed")
    async def handle(order: Order, context: Context) -> None:
        db = await context.transaction()
        await db.execute(STOCK.insert(), {"item": order.item, "n": 1})
        context.emit("shop/orders/7/reserved", order)
        reached.set()
        if held[0]:
            await asyncio.Event().wait()

    async with running(App("shop", TOPICS, services=[service])) as gateway:
        await gateway.publish("shop/orders/7/placed", Order("tea"))
        await reached.wait()
        async with gateway.away("shop.one", killed=True):
            held[0] = False
        await gateway.at_rest()
        assert len(await gateway.events("shop/orders/7/reserved")) == 1
        async with gateway.database("shop.one") as db:
            assert await db.scalar(sa.select(sa.func.count()).select_from(STOCK)) == 1


def test_databases_may_be_on_a_server(tmp_path: Path) -> None:
    async def test(url: str) -> None:
        async with running(shop(), databases={"shop.stock": url}) as gateway:
            await stocked(gateway, "tea", 2)
            await gateway.publish("shop/orders/7/placed", Order("tea"))
            await gateway.event("shop/orders/7/reserved")
            await gateway.at_rest()
            assert await left_of(gateway, "tea") == 1

    with postgresql(tmp_path / "postgresql") as new:
        asyncio.run(test(new("testing")))


# --- the edge ---


async def test_routes_and_websockets_are_at_one_origin() -> None:
    async with running(shop(), edge=True) as gateway, gateway.client("user:ann") as http:
        await stocked(gateway, "tea", 3)
        url = gateway.url.replace("http", "ws") + "/connection/websocket"
        async with client(url, gateway.token("user:ann")) as watcher:
            await watcher.ask("subscribe", channel="shop/orders/+/reserved")
            assert (await http.post("/shop/orders", json={"item": "tea"})).status_code == 202
            (push,) = await watcher.until(1)
            assert push["pub"]["data"] == {"item": "tea"}
        await gateway.at_rest()
        assert (await http.get("/shop/stock/tea")).json() == 2
        async with gateway.client() as nobody:
            assert (await nobody.post("/shop/orders", json={"item": "tea"})).status_code == 401
        async with gateway.away("shop.stock"):
            assert (await http.get("/shop/stock/tea")).status_code == 503
            assert (await http.post("/shop/orders", json={"item": "tea"})).status_code == 202
        assert (await http.get("/shop/stock/tea")).status_code == 200
        url = gateway.url
    async with httpx.AsyncClient(trust_env=False) as late:
        with pytest.raises(httpx.ConnectError):
            await late.get(url)
