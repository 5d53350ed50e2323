"""Sagas whose workers are killed between steps: each ends, and what was done is all there or all undone."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.adapters.child import Server
from gateway.core.event import Appended, Draft, Event
from gateway.store import Store
from tests.faults.saga_process import WITHIN, SagaProcess
from tests.sagas import DATABASE, ENDS, WORK, Running, saga_shop
from tests.servers import eventually

ALL = ("orders", "stock", "payments")
#: Order after order; some fail at each of the steps.
ORDERS = [f"{kind}-{n}" for n in range(15) for kind in ("fine", "reserve", "authorize", "commit")]

LAST = "fine-last"


async def place(shop: Running, order: str) -> None:
    found = shop.shop.declared.find(f"shop/orders/{order}/placed")
    draft = Draft(Event(f"shop/orders/{order}/placed", b'{"sku":"tea"}', order), found.key)
    (answer,) = await shop.log.append(found.partition, [draft], patient=True)
    assert isinstance(answer, Appended)


async def told(stores: dict[str, Store]) -> tuple[dict[str, tuple[str, int]], dict[str, dict[str, str]]]:
    """How the orders ended, and how often they were told so; what the services did of each."""
    work: dict[str, dict[str, str]] = {order: {} for order in (*ORDERS, LAST)}
    async with stores["orders"].read() as db:
        ends = {row.order: (row.how, row.times) for row in await db.execute(sa.select(ENDS))}
    for name in ("stock", "payments"):
        async with stores[name].read() as db:
            for row in await db.execute(sa.select(WORK.c.order, WORK.c.step, WORK.c["is"])):
                work[row[0]][row[1]] = row[2]
    return ends, work


async def ended(stores: dict[str, Store], order: str) -> bool:
    return order in (await told(stores))[0]


@pytest.mark.slow  # workers start again, and leases of the killed expire
async def test_workers_killed_between_the_steps(valkey: Server, tmp_path: Path) -> None:
    dice, urls = random.Random(11), {name: f"sqlite:///{tmp_path}/{name}.db" for name in ALL}
    async with saga_shop(valkey.url, urls, WITHIN) as shop, AsyncExitStack() as stack:
        processes = {name: SagaProcess(valkey.url, name, urls[name]) for name in ALL}
        for one in processes.values():
            await one.start()
            stack.push_async_callback(one.end)
        for one in processes.values():
            await one.up()
        stores = {name: await DATABASE.open(urls[name]) for name in ALL}
        for store in stores.values():
            stack.push_async_callback(store.close)
        for n, order in enumerate(ORDERS):
            await place(shop, order)
            if n % 8 == 7:
                victim = processes[dice.choice(ALL)]
                await asyncio.sleep(dice.random() * 0.2)  # somewhere between the steps
                await victim.end()
                await victim.start()
                await victim.up()

        async def at_rest() -> bool:
            for name in ALL:
                states = [await shop.log.groups.ask(place, f"shop.{name}") for place in shop.log.partitions()]
                if any(state.lag or state.parked for state in states) or (await stores[name].due(1))[0]:
                    return False
            async with stores["orders"].read() as db:
                count = await shop.shop.checkout.count(db)
            return count.keys() <= {"completed", "compensated", "stuck"} and sum(count.values()) >= len(ORDERS)

        await eventually(at_rest, within=100)
        await place(shop, LAST)  # nobody is dead now
        await eventually(lambda: ended(stores, LAST), within=60)
        await eventually(at_rest, within=60)
        ends, work = await told(stores)
        assert {times for _, times in ends.values()} == {1}
        for order in (*ORDERS, LAST):
            how = ends[order][0]
            if how == "completed":
                assert work[order] == dict.fromkeys(("reserve", "authorize", "commit"), "done"), order
            else:
                assert "done" not in work[order].values(), (order, work[order])
        assert ends[LAST][0] == "completed"
        assert all(how == "compensated" for order, (how, _) in ends.items() if not order.startswith("fine"))
