"""What a worker owes to the partitions that it holds, when leases are lost and clocks are coarse."""

from __future__ import annotations

import asyncio
import functools

import pytest

from gateway import Context
from tests.gateway.test_worker import Order, shop, stock
from tests.servers import eventually


async def test_a_suspect_whose_lease_is_lost_holds_up_no_other_suspect(log_server: str) -> None:
    handled: list[str] = []
    begun, going = asyncio.Event(), asyncio.Event()

    async def handle(order: Order, context: Context) -> None:
        begun.set()
        await going.wait()
        handled.append(context.event.id)

    async with shop(log_server, stock(handle)) as one:
        places = {one.declared.find(f"shop/orders/{order}/placed").partition: str(order) for order in range(20)}
        for order in places.values():
            await one.place(1, order=order)
        for place in places:  # a worker that died with one event of each in hand
            lease = await one.log.groups.take(place, "shop.stock", "dead", "earliest", 0.05)
            assert lease is not None
            await lease.settle(None, 10)
        async with one.worker() as worker:
            await begun.wait()
            lost = functools.partial(worker.metrics.registry.get_sample_value, "gateway_leases_lost_total")
            for place, holding in worker.holdings.items():
                if holding.out:  # the one that is tried alone
                    await one.log.groups.seek(place, "shop.stock", 0, void=True)
            await eventually(lambda: lost({"service": "shop.stock"}))
            going.set()
            await eventually(one.at_rest)
        assert sorted(set(handled)) == sorted(f"{order}-1" for order in places.values())


async def test_what_is_done_is_remembered_soon_though_the_alarm_rings_early(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[int] = []

    async def handle(order: Order, context: Context) -> None:
        handled.append(order.n)

    loop = asyncio.get_running_loop()
    rings = loop.call_later
    # As uvloop's clock does, which counts in whole milliseconds; here by more, so that it always shows.
    monkeypatch.setattr(loop, "call_later", lambda delay, *rest, **how: rings(delay / 2, *rest, **how))
    async with shop(log_server, stock(handle)) as one, one.worker(lease=120.0):
        place = one.declared.find("shop/orders/7/placed").partition

        async def remembered() -> bool:
            return not (await one.log.groups.ask(place, "shop.stock")).lag

        for n in range(1, 6):
            await one.place(n)
            await eventually(lambda n=n: handled[-1:] == [n])
            await eventually(remembered)  # not at a quarter of the lease


async def test_a_partition_is_not_taken_again_while_its_lost_delivery_runs(log_server: str) -> None:
    running, most = 0, 0
    begun, cut, going = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(order: Order, context: Context) -> None:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        begun.set()
        while not going.is_set():
            try:
                await going.wait()
            except asyncio.CancelledError:  # it has something to finish
                cut.set()
        running -= 1

    async with shop(log_server, stock(handle)) as one:
        place = one.declared.find("shop/orders/7/placed").partition
        await one.place(1)
        async with one.worker(beat=0.02) as worker:
            try:
                await begun.wait()
                await one.log.groups.seek(place, "shop.stock", 0, void=True)
                await cut.wait()
                await eventually(lambda: not worker.holdings.get(place))
                for _ in range(10):  # beats, at each of which it might have had it
                    await asyncio.sleep(0.02)
                    assert place not in worker.holdings
            finally:
                going.set()
            await eventually(one.at_rest)
        assert most == 1
