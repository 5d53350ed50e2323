"""Each service killed in turn while orders run: every order ends, and the books are right."""

from __future__ import annotations

import asyncio

import pytest

from ecommerce.app import app
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import WITHIN, Shop, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CARDS = ("card_ok", "card_twice", "card_stolen")
ENDS = ("completed", "out_of_stock", "cancelled")


async def test_killed_in_turn_every_order_ends_well(shop: Shop) -> None:
    ann = await shop.person("ann")
    await shop.sells("TEA", stock=12)
    orders = list[str]()
    for group in (*(f"ecommerce.{service.name}" for service in app.services), "accounts.users"):
        orders += await asyncio.gather(*(ann.buys(("TEA", 1), card=card) for card in CARDS))
        async with shop.gateway.away(group, killed=True):
            pass  # what it had in hand comes again
    ends = [(await shop.status(order, *ENDS))["what"] for order in orders]
    # Stolen cards give back what they held; how many wait for it is chance.
    assert 0 < ends.count("completed") <= 12
    assert ends.count("cancelled") <= len(orders) // len(CARDS)

    async def balanced() -> bool:
        return faults(await read(shop.gateway)) == []

    await until(balanced)
    await shop.gateway.at_rest(within=WITHIN)
    assert [(one.topic, one.error) for one in await shop.gateway.dead_letters()] == []
    for order in orders:
        told = [one.json()["what"] for one in await shop.gateway.events(f"ecommerce/orders/{order}/status/+")]
        # A double of the same id may be told again; what it says is the same, and nothing is skipped.
        assert told[0] == "placed"
        assert {"completed", "out_of_stock", "cancelled"} & set(told)
