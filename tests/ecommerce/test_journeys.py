"""Orders from the click to the parcel, or to where they turn back, on real servers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

import msgspec
import pytest

from ecommerce.acquirer.rules import signature
from ecommerce.orders.checkout import checkout
from ecommerce.settings import settings
from ecommerce.shipping.tables import PARCELS
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import PASSWORD, WITHIN, Shop, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_order_to_its_end(shop: Shop) -> None:
    ann = await shop.person("ann")
    await shop.sells("TEA", 1290, stock=10)
    order = await ann.buys(("TEA", 2), ("TEA", 1))
    await shop.status(order, "completed")
    seen = await ann.sees(order)
    assert (seen["status"], seen["payment"], seen["fulfilment"]) == ("completed", "captured", "delivered")
    assert seen["total"] == 3 * 1290
    assert await shop.available("TEA") == 7
    told = [one.json()["what"] for one in await shop.gateway.events(f"ecommerce/orders/{order}/status/{ann.user}")]
    assert told == "placed reserved authorized confirmed shipped captured delivered completed".split()
    await until(lambda: len(shop.mails.to(ann)) == 3)
    assert sorted(one.removeprefix(f"Your order {order} ") for one in shop.mails.to(ann)) == [
        "is confirmed",
        "is on its way",
        "was delivered",
    ]
    await shop.mails.say(f"Your order {order} is confirmed", "Ann Smith", "38.70 EUR")
    tracking = (await shop.status(order, "shipped"))["detail"]
    assert tracking.startswith("TG")
    await shop.mails.say(f"Your order {order} is on its way", "Ann Smith", f"tracking number is {tracking}.")


async def test_out_of_stock_is_told_and_nothing_is_kept(shop: Shop) -> None:
    bob = await shop.person("bob")
    await shop.sells("PLENTY", stock=5)
    await shop.sells("RARE", stock=1)
    order = await bob.buys(("RARE", 1), ("PLENTY", 2), ("RARE", 1))
    assert (await shop.status(order, "out_of_stock"))["detail"] == "RARE"
    assert (await shop.available("RARE"), await shop.available("PLENTY")) == (1, 5)
    await until(lambda: shop.mails.to(bob) == [f"Your order {order}: out of stock"])
    await shop.mails.say(f"Your order {order}: out of stock", "Bob Smith", "not enough of RARE", "Nothing was charged")
    assert (await bob.sees(order))["payment"] == "none"


async def test_a_declined_card_keeps_the_goods_for_another(shop: Shop) -> None:
    cat = await shop.person("cat")
    await shop.sells("LAMP", stock=1)
    order = await cat.buys(("LAMP", 1), card="card_declined")
    assert (await shop.status(order, "declined"))["detail"] == "insufficient_funds"
    assert await shop.available("LAMP") == 0
    subject = f"Your order {order}: the payment was declined"
    await until(lambda: shop.mails.to(cat) == [subject])
    await shop.mails.say(subject, "Cat Smith", "declined (insufficient_funds)", "try another card")
    again = await cat.ask("POST", f"/ecommerce/payments/{order}/attempts", {"method": "card_ok"})
    assert again.status_code == 202, again.text
    await shop.status(order, "completed")
    assert (await cat.ask("POST", f"/ecommerce/payments/{order}/attempts", {"method": "card_ok"})).status_code == 409


@pytest.mark.parametrize("cards", [("card_stolen",), ("card_declined", "card_declined", "card_unknown")])
async def test_the_last_decline_releases_the_goods(shop: Shop, cards: tuple[str, ...]) -> None:
    dan, sku = await shop.person(f"dan{len(cards)}"), f"DESK-{len(cards)}"
    await shop.sells(sku, stock=1)
    order = await dan.buys((sku, 1), card=cards[0])
    for n, card in enumerate(cards[1:], 2):
        await shop.gateway.events(f"ecommerce/payments/{order}/declined", n - 1, within=WITHIN)
        assert (await dan.ask("POST", f"/ecommerce/payments/{order}/attempts", {"method": card})).status_code == 202
    ended = await shop.status(order, "cancelled")
    assert ended["payment"] == "declined"
    assert await shop.available(sku) == 1
    await until(lambda: f"Your order {order} is cancelled" in shop.mails.to(dan))


async def test_who_does_not_pay_in_time_loses_the_goods(shop: Shop) -> None:
    eve = await shop.person("eve")
    await shop.sells("SOFA", stock=1)
    order = await eve.buys(("SOFA", 1), card="card_silent")
    await shop.gateway.event(f"ecommerce/payments/{order}/charge", within=WITHIN)
    await _hurry(shop, order)
    await shop.status(order, "expired")
    assert await shop.available("SOFA") == 1
    await until(lambda: shop.mails.to(eve) == [f"Your order {order} has expired"])
    # A customer who did not pay is no trouble of ours.
    assert await shop.gateway.events(f"ecommerce/orders/{order}/stuck") == []


async def test_orders_are_taken_while_everybody_else_is_down(shop: Shop) -> None:
    gus = await shop.person("gus")
    await shop.sells("BOOK", stock=5)
    down = [f"ecommerce.{one}" for one in ("catalog", "inventory", "payments", "acquirer", "shipping", "notifications")]
    async with AsyncExitStack() as away:
        for one in [*down, "accounts.users"]:
            await away.enter_async_context(shop.gateway.away(one, killed=one == "ecommerce.payments"))
        orders = [await gus.buys(("BOOK", 1)) for _ in range(5)]
        assert [(await gus.sees(order))["status"] for order in orders] == ["accepted"] * 5
    for order in orders:
        await shop.status(order, "completed")
    assert await shop.available("BOOK") == 0


@pytest.mark.parametrize("card", ["card_twice", "card_late_twice", "card_slow"])
async def test_webhooks_that_come_late_or_twice_count_once(shop: Shop, card: str) -> None:
    hal = await shop.person(f"hal{card}")
    await shop.sells("PEN", stock=9)
    order = await hal.buys(("PEN", 1), card=card)
    await shop.status(order, "completed")
    told = 1 if card == "card_slow" else 2
    await shop.gateway.events(f"ecommerce/acquirer/{order}/told", told, within=WITHIN)
    await shop.gateway.at_rest(within=WITHIN)
    assert len(await shop.gateway.events(f"ecommerce/payments/{order}/authorized")) == 1
    assert (await hal.sees(order))["status"] == "completed"


async def test_only_the_acquirer_is_believed(shop: Shop) -> None:
    ian = await shop.person("ian")
    await shop.sells("RING", 5000, stock=1)
    order = await ian.buys(("RING", 1), card="card_silent")
    await shop.gateway.event(f"ecommerce/payments/{order}/charge", within=WITHIN)
    told = {"id": f"x-{order}", "kind": "approved", "order": order, "attempt": 1, "amount": 5000, "currency": "EUR"}
    good, now, secret = msgspec.json.encode(told | {"code": ""}), int(time.time()), settings().webhook_secret

    async def says(body: bytes, header: str) -> int:
        path, headers = "/ecommerce/payments/webhooks", {"acquirer-signature": header}
        return (await shop.http.post(path, content=body, headers=headers)).status_code

    assert await says(good, "") == 401
    assert await says(good, signature(b"another", good, now)) == 401
    assert await says(good + b" ", signature(secret, good, now)) == 401
    assert await says(good, signature(secret, good, now - 100_000)) == 401
    wrongs = ({"amount": 1}, 422), ({"currency": "USD"}, 422), ({"order": "z"}, 404), ({"attempt": 7}, 200)
    for wrong, status in wrongs:
        bad = msgspec.json.encode(told | {"code": "", "id": f"y-{wrong}"} | wrong)
        assert await says(bad, signature(secret, bad, now)) == status
    assert (await ian.sees(order))["payment"] == "none"
    cancelled = await ian.ask("POST", f"/ecommerce/orders/{order}/cancel")
    assert cancelled.status_code == 202
    await shop.status(order, "cancelled")
    # Late truth: the approval comes after the void, and changes nothing.
    assert await says(good, signature(secret, good, int(time.time()))) == 200
    await shop.gateway.at_rest(within=WITHIN)
    assert (await ian.sees(order))["status"] == "cancelled"
    assert (await ian.ask("POST", f"/ecommerce/orders/{order}/cancel")).status_code == 409


async def test_a_key_makes_one_order(shop: Shop) -> None:
    joe = await shop.person("joe")
    await shop.sells("CUP", stock=9)
    answers = await asyncio.gather(*(joe.order(("CUP", 1), key="k") for _ in range(20)))
    assert {(one.status_code, one.text) for one in answers} == {(202, answers[0].text)}
    assert answers[0].headers["location"].endswith(answers[0].json()["order"])
    other = await joe.order(("CUP", 2), key="k")
    assert (other.status_code, other.json()["type"].rpartition(":")[2]) == (422, "idempotency_key_reused")
    kim = await shop.person("kim")
    assert (await kim.order(("CUP", 1), key="k")).json()["order"] != answers[0].json()["order"]
    mine = (await joe.ask("GET", "/ecommerce/orders/")).json()
    assert [one["order"] for one in mine["items"]] == [answers[0].json()["order"]]
    no_key = await joe.ask("POST", "/ecommerce/orders/", {"lines": [{"sku": "CUP"}], "method": "card_ok"})
    assert no_key.status_code == 400


@pytest.mark.parametrize("lines", [[("NONE", 1)], [("CUP-X", 0)], [("cup", 1)], [("CUP-X", 1000)], []])
async def test_what_nobody_can_buy_is_refused(shop: Shop, lines: list[tuple[str, int]]) -> None:
    leo = await shop.person("leo")
    await shop.sells("CUP-X")
    refused = await leo.order(*lines)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


async def test_a_number_of_a_card_is_kept_nowhere(shop: Shop) -> None:
    lea = await shop.person("lea")
    await shop.sells("CUP-Y", stock=1)
    order = await lea.buys(("CUP-Y", 1), card="card_declined")
    await shop.status(order, "declined")
    for number in ("4111111111111111", "card_4111111111111111", "4111 1111 1111 1111"):
        again = await lea.ask("POST", f"/ecommerce/payments/{order}/attempts", {"method": number})
        for refused in (again, await lea.order(("CUP-Y", 1), card=number)):
            assert (refused.status_code, number in refused.text) == (422, False)
    await lea.ask("POST", f"/ecommerce/orders/{order}/cancel")
    await shop.status(order, "cancelled")


async def test_a_parcel_whose_clock_stopped_leaves_when_it_is_asked_for_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lou = await shop.person("lou")
    await shop.sells("CLOCK", stock=1)
    monkeypatch.setenv("ECOMMERCE_PACKING", "3600")
    monkeypatch.setenv("ECOMMERCE_DRIVING", "3600")
    order = await lou.buys(("CLOCK", 1))
    for standing, told, clock in (("prepared", "shipped", "PACKING"), ("moving", "completed", "DRIVING")):
        await until(partial(_parcel, shop, order, standing))
        monkeypatch.setenv(f"ECOMMERCE_{clock}", "0.01")
        await _hurry(shop, order)
        await shop.status(order, told)
    facts = [len(await shop.gateway.events(f"ecommerce/shipping/{order}/{fact}")) for fact in ("shipped", "delivered")]
    assert facts == [1, 1]


async def _parcel(shop: Shop, order: str, status: str) -> bool:
    async with shop.gateway.database("ecommerce.shipping") as db:
        rows = (await db.execute(PARCELS.select().where(PARCELS.c.order == order))).all()
    return [row.status for row in rows] == [status]


async def test_a_price_is_that_of_the_moment(shop: Shop) -> None:
    mia = await shop.person("mia")
    await shop.sells("HAT", 1000, stock=2)
    order = await mia.buys(("HAT", 1), card="card_slow")
    await shop.sells("HAT", 2000)
    await shop.status(order, "completed")
    assert (await mia.sees(order))["total"] == 1000
    assert (await mia.order(("HAT", 1))).json()["total"] == 2000
    shown = (await shop.http.get("/ecommerce/catalog/HAT")).json()
    assert (shown["price"], shown["version"]) == (2000, 2)
    listed = (await shop.http.get("/ecommerce/catalog/?after=HAS")).json()["items"]
    assert listed[0]["sku"] == "HAT"


async def test_a_customer_sees_nothing_of_another(shop: Shop) -> None:
    ned, eva = await shop.person("ned"), await shop.person("eva")
    await shop.sells("GIFT", stock=1)
    order = await ned.buys(("GIFT", 1), card="card_declined")
    await shop.status(order, "declined")
    asked = [
        ("GET", f"/ecommerce/orders/{order}", None),
        ("POST", f"/ecommerce/orders/{order}/cancel", None),
        ("GET", f"/ecommerce/payments/{order}", None),
        ("POST", f"/ecommerce/payments/{order}/attempts", {"method": "card_ok"}),
    ]
    for method, path, body in asked:
        theirs, nobodys = await eva.ask(method, path, body), await eva.ask(method, path.replace(order, "0-0"), body)
        assert (theirs.status_code, theirs.json()["detail"]) == (404, nobodys.json()["detail"])
        assert (await shop.http.request(method, path, json=body)).status_code == 401
    assert (await eva.ask("GET", f"/ecommerce/orders/?user={ned.user}")).json()["items"] == []
    assert (await eva.ask("PUT", f"/ecommerce/notifications/people/{ned.user}/consent")).status_code == 403
    assert (await eva.ask("GET", f"/accounts/users/people/{ned.user}/contact")).status_code == 403
    status = _path(f"ecommerce/orders/{order}/status/{ned.user}")
    for path in (status, _path(f"ecommerce/payments/{order}/declined"), _path(f"ecommerce/orders/+/status/{ned.user}")):
        assert (await eva.ask("GET", f"{path}/history")).status_code == 403
    own = await ned.ask("GET", f"{status}/history")
    assert "insufficient_funds" in own.text, own.text
    # Commands are the services' alone.
    assert (await eva.ask("POST", _path(f"ecommerce/inventory/{order}/release"), {})).status_code == 403
    operators = [("PUT", "/ecommerce/catalog/GIFT"), ("PUT", "/ecommerce/inventory/receipts/1")]
    operators += [("GET", "/ecommerce/inventory/"), ("PUT", "/ecommerce/notifications/promotions/1")]
    operators += [("POST", f"/ecommerce/acquirer/{order}/void")]
    for method, path in operators:
        assert (await eva.ask(method, path, {})).status_code == 403
    # A service is asked by the one that needs it, and by no other.
    for_services = [("POST", f"/ecommerce/acquirer/{order}/{what}") for what in ("charge", "void", "capture")]
    for_services += [("GET", f"/accounts/users/people/{ned.user}/contact")]
    for_services += [("GET", f"/ecommerce/notifications/people/{ned.user}/consent")]
    async with shop.gateway.client("service:ecommerce.orders") as http:
        assert {(await http.request(method, path)).status_code for method, path in for_services} == {403}
    await ned.ask("POST", f"/ecommerce/orders/{order}/cancel")
    await shop.status(order, "cancelled")


async def test_the_log_knows_nobody(shop: Shop) -> None:
    """After all the journeys above: every event of the log, and of the accounts that made them."""
    pam = await shop.person("pam")
    await shop.sells("VASE", stock=1)
    order = await pam.buys(("VASE", 1))
    await shop.status(order, "completed")
    await until(lambda: len(shop.mails.to(pam)) == 3)
    events = [*await shop.gateway.events("ecommerce/#"), *await shop.gateway.events("accounts/#")]
    assert events
    for event in events:
        told = f"{event.topic} {event.data.decode()} {event.meta}".lower()
        for personal in ("example.org", "smith", "+49151", PASSWORD):
            assert personal not in told, event.topic


async def test_the_books_are_right(shop: Shop) -> None:
    """The checker, over all that happened above."""

    async def ended() -> bool:
        return faults(await read(shop.gateway)) == []

    try:
        await until(ended)
    except pytest.fail.Exception:
        pytest.fail("\n".join(faults(await read(shop.gateway))))
    assert [(one.topic, one.error) for one in await shop.gateway.dead_letters()] == []


async def _hurry(shop: Shop, order: str) -> None:
    """Let the deadline of the step that is waited for be over in a moment."""
    async with shop.gateway.database("ecommerce.orders") as db:
        assert await checkout.extend(db, order, 0.01)


def _path(topic: str) -> str:
    return f"/topics/{quote(topic, safe='')}"
