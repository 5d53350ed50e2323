"""The shop on PostgreSQL, where transactions run side by side: the same promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from accounts.app import app as accounts
from ecommerce.app import app as ecommerce
from tests.databases import new_database, postgres
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import WITHIN, open_shop, until


@pytest.mark.timeout(400)  # forty seconds of work where the machine is busy
async def test_a_rush_on_postgresql(tmp_path: Path) -> None:
    groups = [f"{app.name}.{service.name}" for app in (accounts, ecommerce) for service in app.services]
    with postgres() as server:
        databases = {group: new_database(server, group.replace(".", "_")) for group in groups}
        async with open_shop(tmp_path, databases) as shop:
            ann, bob = await shop.person("ann"), await shop.person("bob")
            await shop.sells("TEA", stock=2)
            await shop.sells("CUP", stock=2)
            # Two articles in both orders: who locks in the order of the lines ends in a deadlock.
            baskets = [[("TEA", 1), ("CUP", 1)], [("CUP", 1), ("TEA", 1)]] * 2
            orders = await asyncio.gather(*(ann.buys(*basket) for basket in baskets))
            same = await asyncio.gather(*(bob.order(("TEA", 1), card="card_twice", key="k") for _ in range(4)))
            assert len({one.text for one in same}) == 1, [one.text for one in same]
            lost = await bob.buys(("TEA", 1), card="card_stolen")
            ends = [await shop.status(one, "completed", "out_of_stock") for one in orders]
            assert [one["what"] for one in ends].count("completed") <= 2
            await shop.status(lost, "cancelled", "out_of_stock")
            await shop.status(same[0].json()["order"], "completed", "out_of_stock")

            async def balanced() -> bool:
                return faults(await read(shop.gateway)) == []

            await until(balanced)
            await shop.gateway.at_rest(within=WITHIN)
            assert [(one.topic, one.error) for one in await shop.gateway.dead_letters()] == []
            assert (await bob.ask("POST", "/accounts/users/me/erase", {"password": "wrong horse"})).status_code == 401
