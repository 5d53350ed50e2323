"""Each service killed in turn while orders run: every order ends, and the books are right."""

from __future__ import annotations

import asyncio

import pytest

from ecommerce.app import app
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import WITHIN, Shop, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CARDS = ("card_ok", "card_twice", "card_stolen")
#: How an order ends → the mails of it, no more and no fewer: what follows its number in their subjects.
MAILS = {
    "completed": (" is confirmed", " is on its way", " was delivered"),
    "out_of_stock": (": out of stock",),
    "cancelled": (": the payment was declined", " is cancelled"),
}


async def test_killed_in_turn_every_order_ends_well(shop: Shop) -> None:
    ann = await shop.person("ann")
    await shop.sells("TEA", stock=12)
    orders = list[str]()
    for group in (*(f"ecommerce.{service.name}" for service in app.services), "accounts.users"):
        orders += await asyncio.gather(*(ann.buys(("TEA", 1), card=card) for card in CARDS))
        async with shop.gateway.away(group, killed=True):
            pass  # what it had in hand comes again
    ends = [(await shop.status(order, *MAILS))["what"] for order in orders]
    # Stolen cards give back what they held; how many wait for it is chance.
    assert 0 < ends.count("completed") <= 12
    assert ends.count("cancelled") <= len(orders) // len(CARDS)

    async def balanced() -> bool:
        return faults(await read(shop.gateway)) == []

    await until(balanced)
    owed = sorted(f"Your order {order}{mail}" for order, end in zip(orders, ends, strict=True) for mail in MAILS[end])
    await until(lambda: set(shop.mails.to(ann)) >= set(owed))
    await shop.gateway.at_rest(within=WITHIN)
    # Who died before it was noted that a mail went sends it again, by the same Message-ID, and it is seen to be one.
    sent = {(str(mail["Message-ID"]), str(mail["To"]), str(mail["Subject"])) for mail in shop.mails.got}
    assert sorted((to, subject) for _, to, subject in sent) == [(ann.mail, subject) for subject in owed]
    assert [(one.topic, one.error) for one in await shop.gateway.dead_letters()] == []
    for order in orders:
        told = [one.json()["what"] for one in await shop.gateway.events(f"ecommerce/orders/{order}/status/+")]
        # A double of the same id may be told again; what it says is the same, and nothing is skipped.
        assert told[0] == "placed"
        assert MAILS.keys() & set(told)
