"""People beside each other in the shop: fifty who want one thing, and two who must not see each other's orders."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

import pytest

from tests.doors import SHUT, answers
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import Person, Shop, until
from tests.gateways import Client, client
from tests.whole.stage import asked

pytestmark = pytest.mark.asyncio(loop_scope="module")
BUYERS = 50
READING = {"subscribe", "recover", "history", "GET", "GET/history", "GET/events", "GET/events?ticket", "POST /tickets"}


def told(socket: Client) -> list[tuple[str, str]]:
    """The topic of each event that came, and what it says became of the order."""
    pubs = [push["pub"] for push in socket.pushes if "pub" in push]
    return [(pub["tags"]["topic"], str(pub["data"].get("what"))) for pub in pubs]


async def test_fifty_people_want_one_thing(shop: Shop) -> None:
    people = list[Person]()
    while len(people) < BUYERS:  # they register some at a time; what they do at one moment is buy
        people += await asyncio.gather(*(shop.person(f"buyer-{len(people) + n}") for n in range(10)))
    await shop.sells("LAST", stock=1)
    before = len(shop.mails.got)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(client(_websocket(shop), one.access)) for one in people]
        for one, socket in zip(people, sockets, strict=True):
            assert "subscribe" in await socket.ask("subscribe", channel=f"ecommerce/orders/+/status/{one.user}")
        left = list[int]()

        async def buys(one: Person) -> str:
            # Fifty at one moment, on one loop: who is told to come again does, with the same key.
            headers = {"authorization": f"Bearer {one.access}", "idempotency-key": f"last-{one.user}"}
            body = {"lines": [{"sku": "LAST", "quantity": 1}], "method": "card_ok"}
            answer = await asked(shop.http, "POST", "/ecommerce/orders/", body, headers)
            assert answer.status_code == 202, answer.text
            left.append(await shop.available("LAST"))
            return str(answer.json()["order"])

        orders = await asyncio.gather(*(buys(one) for one in people))
        ends = {"completed", "out_of_stock"}
        await until(lambda: all(ends & {what for _, what in told(socket)} for socket in sockets))
        heard = [[what for _, what in told(socket)] for socket in sockets]
        for one, order, socket in zip(people, orders, sockets, strict=True):
            assert {topic for topic, _ in told(socket)} == {f"ecommerce/orders/{order}/status/{one.user}"}
    assert Counter(one[-1] for one in heard) == {"completed": 1, "out_of_stock": BUYERS - 1}
    (won,) = (n for n, one in enumerate(heard) if one[-1] == "completed")
    assert heard[won] == "placed reserved authorized confirmed shipped captured delivered completed".split()
    assert all(one == ["placed", "out_of_stock"] for n, one in enumerate(heard) if n != won)
    assert set(left) <= {0, 1}
    assert await shop.available("LAST") == 0
    mails = {
        one.mail: {f"Your order {order}: out of stock"} if n != won else {
            f"Your order {order} {what}" for what in ("is confirmed", "is on its way", "was delivered")
        }
        for n, (one, order) in enumerate(zip(people, orders, strict=True))
    }  # fmt: skip
    # Counted while it waits: reading the head of every mail every few milliseconds would keep the shop from working.
    await until(lambda: len(shop.mails.got) >= before + BUYERS - 1 + 3)
    assert {one.mail: set(shop.mails.to(one)) for one in people} == mails
    await shop.gateway.at_rest()
    assert faults(await read(shop.gateway)) == []


async def test_an_order_is_delivered_to_its_customer_alone(shop: Shop) -> None:
    ned, eva = await shop.person("ned"), await shop.person("eva")
    await shop.sells("GIFT", stock=1)
    order = await ned.buys(("GIFT", 1), card="card_declined")
    await shop.status(order, "declined")
    own, news = f"ecommerce/orders/{order}/status/{ned.user}", "ecommerce/catalog/+/priced"
    others = [own, f"ecommerce/orders/+/status/{ned.user}", f"ecommerce/orders/{order}/status/+", "ecommerce/orders/#"]
    others += [f"ecommerce/payments/{order}/captured", f"ecommerce/shipping/{order}/+", "ecommerce/#", "#"]
    strangers = {"eva": eva.access, "a viewer": shop.gateway.token(f"viewer:{ned.user}")}
    async with AsyncExitStack() as stack:
        his = await stack.enter_async_context(client(_websocket(shop), ned.access))
        # To the order's own customer all are open that read.
        doors = await answers(shop.http, his, ned.access, own)
        assert {door for door, code in doors.items() if code in (0, 200, 201)} == READING, doors
        assert "subscribe" in await his.ask("subscribe", channel=own)
        streams = {"ned": await _stream(stack, shop, own, ned.access)}
        sockets = dict[str, Client]()
        for name, token in strangers.items():
            sockets[name] = await stack.enter_async_context(client(_websocket(shop), token))
            for filter in others:
                doors = await answers(shop.http, sockets[name], token, filter)
                assert {door for door, code in doors.items() if code not in SHUT} == set(), (name, filter)
            assert "subscribe" in await sockets[name].ask("subscribe", channel=news)
            streams[name] = await _stream(stack, shop, news, token)
        await sockets["eva"].ask("subscribe", channel=f"ecommerce/orders/+/status/{eva.user}")
        assert (
            await ned.ask("POST", f"/ecommerce/payments/{order}/attempts", {"method": "card_ok"})
        ).status_code == 202
        # It flows, before their eyes, and they hear of what is everybody's alone.
        await until(lambda: (own, "completed") in told(his))
        await until(lambda: "completed" in "".join(streams["ned"]))
        await shop.sells("NEWS")
        for name, socket in sockets.items():
            await until(partial(_hears, socket, streams[name], "ecommerce/catalog/NEWS/priced"))
            assert {topic.split("/")[1] for topic, _ in told(socket)} == {"catalog"}
            assert order not in "".join(streams[name])


def _hears(socket: Client, stream: list[str], topic: str) -> bool:
    return topic in dict(told(socket)) and topic in "".join(stream)


async def _stream(stack: AsyncExitStack, shop: Shop, filter: str, token: str) -> list[str]:
    """What SSE brings from now on, line by line."""
    headers = {"authorization": f"Bearer {token}"}
    answer = await stack.enter_async_context(shop.http.stream("GET", _events(filter), headers=headers))
    assert answer.status_code == 200
    lines, open = list[str](), asyncio.Event()

    async def read() -> None:
        async for line in answer.aiter_lines():
            lines.append(line)
            open.set()

    reading = asyncio.create_task(read(), name=f"stream of {filter}")
    stack.callback(reading.cancel)
    await open.wait()
    return lines


def _events(filter: str) -> str:
    return f"/topics/{quote(filter, safe='')}/events"


def _websocket(shop: Shop) -> str:
    return shop.gateway.url.replace("http", "ws", 1) + "/connection/websocket"
