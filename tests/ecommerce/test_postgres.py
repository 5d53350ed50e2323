"""The shop on PostgreSQL, where transactions run side by side: the same promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from accounts.app import app as accounts
from ecommerce.app import app as ecommerce
from tests.databases import new_database, postgres
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import WITHIN, Person, open_shop, until

ENDS = ("completed", "out_of_stock", "cancelled")
BUYERS = [f"buyer-{n}" for n in range(10)]


@pytest.mark.timeout(400)  # forty seconds of work where the machine is busy
async def test_a_rush_on_postgresql(tmp_path: Path) -> None:
    groups = [f"{app.name}.{service.name}" for app in (accounts, ecommerce) for service in app.services]
    with postgres() as server:
        databases = {group: new_database(server, group.replace(".", "_")) for group in groups}
        async with open_shop(tmp_path, databases) as shop:
            ann, bob = await shop.person("ann"), await shop.person("bob")
            # These have no account: what they want is one thing, and their tokens are good.
            buyers = [Person(shop, name, "", "", shop.token(name)) for name in BUYERS]
            # Tea for all who can have it, cups for two of ann's orders: who is first is chance, and how many is not.
            for sku, stock in (("TEA", 4), ("CUP", 2), ("LAST", 1)):
                await shop.sells(sku, stock=stock)
            # Two articles in both orders: who locks in the order of the lines ends in a deadlock.
            baskets = [[("TEA", 1), ("CUP", 1)], [("CUP", 1), ("TEA", 1)]] * 2
            orders, wanted = await asyncio.gather(
                asyncio.gather(*(ann.buys(*basket) for basket in baskets)),
                asyncio.gather(*(one.buys(("LAST", 1)) for one in buyers)),
            )
            same = await asyncio.gather(*(bob.order(("TEA", 1), card="card_twice", key="k") for _ in range(4)))
            assert len({one.text for one in same}) == 1, [one.text for one in same]
            lost = await bob.buys(("TEA", 1), card="card_stolen")
            ends = [(await shop.status(one, *ENDS))["what"] for one in orders]
            assert Counter(ends) == {"completed": 2, "out_of_stock": 2}
            assert (await shop.status(lost, *ENDS))["what"] == "cancelled"
            assert (await shop.status(same[0].json()["order"], *ENDS))["what"] == "completed"
            # One unit, and each who wanted it is told.
            ends = [(await shop.status(one, *ENDS))["what"] for one in wanted]
            assert Counter(ends) == {"completed": 1, "out_of_stock": len(BUYERS) - 1}

            async def balanced() -> bool:
                return faults(await read(shop.gateway)) == []

            await until(balanced)
            await shop.gateway.at_rest(within=WITHIN)
            assert [(one.topic, one.error) for one in await shop.gateway.dead_letters()] == []
            assert (await bob.ask("POST", "/accounts/users/me/erase", {"password": "wrong horse"})).status_code == 401
