"""What a saga promises on every log server and database: it ends, and what it did is all there or all undone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from gateway import Service, limits
from gateway.adapters.database import attach
from gateway.errors import BadTopic, Misconfigured, NotAvailable
from gateway.sql import Database, Saga, Step, Transaction
from gateway.store import SagaCount
from tests.databases import KINDS, NewDatabase
from tests.sagas import WORK, Authorized, Basket, Running, saga_shop, steps
from tests.servers import eventually

Shop = Callable[..., Any]
ALL = ("orders", "stock", "payments")


@pytest.fixture(scope="session", params=sorted(KINDS))
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with KINDS[request.param](tmp_path_factory.mktemp("saga-databases") / request.param) as new:
        yield new


@pytest.fixture
def urls(new_url: NewDatabase) -> dict[str, str]:
    return {name: new_url(name) for name in ALL}


@pytest.fixture
async def running(log_server: str, urls: dict[str, str]) -> AsyncIterator[Running]:
    async with saga_shop(log_server, urls) as shop:
        await shop.up(*ALL)
        yield shop


async def test_steps_one_after_another_carry_what_was_kept(running: Running) -> None:
    await running.start("7", "8")
    await eventually(lambda: running.ended("7", "8"), within=30)
    assert await running.work("7") == dict.fromkeys(("reserve", "authorize", "commit"), "done")
    async with running.stores["stock"].read() as db:
        sent = {row.step: row.payload for row in await db.execute(sa.select(WORK).where(WORK.c.order == "7"))}
    assert sent["reserve"] == b'{"sku":"tea","payment":""}'
    assert msgspec.json.decode(sent["commit"], type=Basket) == Basket("tea", "payment of 7")
    assert await running.ends() == {"7": ("completed", 1), "8": ("completed", 1)}
    async with running.stores["orders"].read() as db:
        seen = await running.shop.checkout.state(db, "7")
        assert seen is not None
        assert (seen.phase, seen.step, seen.stuck, seen.late) == ("completed", "", False, None)
        assert seen.started <= (seen.ended or 0)
        assert await running.shop.checkout.count(db) == {"completed": 2, "stuck": 0}


async def test_open_ones_are_counted_by_one_worker_and_by_who_looks_in(
    log_server: str, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAGA_COUNTED_EVERY", 0.02)
    async with saga_shop(log_server, urls) as shop:
        await shop.up("orders")

        def gauge(state: str) -> float | None:
            labels = {"service": "shop.orders", "saga": "checkout", "state": state}
            return shop.workers["orders"].metrics.registry.get_sample_value("gateway_sagas", labels)

        await shop.start("7", "8")
        await eventually(lambda: gauge("running") == 2, within=30)
        assert gauge("overdue") == gauge("stuck") == 0
        looking = await attach(urls["orders"])
        try:
            assert await looking.sagas(["checkout", "another"]) == [SagaCount("checkout", 2), SagaCount("another")]
            # Nobody will say that they are late: as if their timers were dead letters, a minute after their time.
            monkeypatch.setattr(limits, "DOCTOR_LATE", -1_000.0)
            assert await looking.sagas(["checkout"]) == [SagaCount("checkout", 2, overdue=2)]
            await eventually(lambda: gauge("overdue") == 2, within=30)
        finally:
            await looking.close()
        await shop.up("stock", "payments")
        await eventually(lambda: gauge("running") == gauge("overdue") == 0, within=60)
        assert await shop.ended("7", "8")


async def test_looking_in_makes_no_tables(new_url: NewDatabase) -> None:
    url = new_url("never")
    for _ in range(2):
        with pytest.raises((NotAvailable, Misconfigured)):
            await attach(url)


@pytest.mark.parametrize(
    ("order", "work"),
    [
        ("reserve-7", {"reserve": "failed"}),
        ("authorize-7", {"reserve": "undone", "authorize": "failed"}),
        ("commit-7", {"reserve": "undone", "authorize": "undone", "commit": "failed"}),
    ],
)
async def test_what_was_done_before_a_failure_is_undone(running: Running, order: str, work: dict[str, str]) -> None:
    await running.start(order)
    await eventually(lambda: running.ended(order), within=30)
    await eventually(running.at_rest)
    assert await running.work(order) == work
    assert await running.ends() == {order: ("compensated", 1)}


async def test_a_deadline_that_passes_with_a_service_down(
    log_server: str, urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with saga_shop(log_server, urls, within=0.05) as shop:
        # The first step has to be done within its time, on whatever machine: so its service is asked for more of it.
        await shop.up("orders", "stock")
        async with shop.workers["orders"].routed.transaction() as db:
            await shop.shop.checkout.start(db, "7", Basket("tea"))
            assert await shop.shop.checkout.extend(db, "7", 60)

        async def stuck() -> bool:
            async with shop.stores["orders"].read() as asked:
                return (await shop.shop.checkout.count(asked))["stuck"] == 1

        with caplog.at_level(logging.WARNING, "gateway.saga"):
            await eventually(stuck, within=30)
        assert "checkout of 7 is stuck: authorize does not answer" in caplog.text
        async with shop.stores["orders"].read() as asked:
            seen = await shop.shop.checkout.state(asked, "7")
        assert seen is not None
        assert (seen.phase, seen.step, seen.stuck) == ("compensating", "authorize", True)
        await shop.up("payments")
        await eventually(lambda: shop.ended("7"), within=30)
        await eventually(shop.at_rest, within=30)
        assert await shop.ended("7")
        assert await shop.work("7") == {"reserve": "undone", "authorize": "undone"}
        assert await shop.ends() == {"7": ("compensated", 1)}


@pytest.mark.parametrize("forgetful", [False, True])
async def test_everything_that_comes_again_changes_nothing(running: Running, forgetful: bool) -> None:
    orders = ("7", "commit-7")
    await running.start(*orders)
    await eventually(lambda: running.ended(*orders), within=30)
    await eventually(running.at_rest)
    before = [await running.work(order) for order in orders]
    if forgetful:  # as after a month: every command and fact is handled again
        for store in running.stores.values():
            await store.purge(-3600)
    for name in ALL:
        for place in running.log.partitions():
            await running.log.groups.seek(place, f"shop.{name}", 0, void=True)
    await eventually(running.at_rest, within=30)
    await eventually(lambda: running.ended(*orders), within=30)
    assert [await running.work(order) for order in orders] == before
    assert await running.ends() == {"7": ("completed", 1), "commit-7": ("compensated", 1)}


async def test_it_is_started_once_and_cancelled_while_there_is_a_way_back(
    log_server: str, urls: dict[str, str]
) -> None:
    async with saga_shop(log_server, urls) as shop:
        await shop.up("orders", "stock")  # nobody answers for payments
        checkout = shop.shop.checkout
        async with shop.workers["orders"].routed.transaction() as db:
            assert await checkout.start(db, "7", Basket("tea"))
            assert not await checkout.start(db, "7", Basket("coffee"))
            assert not await checkout.cancel(db, "8")
            with pytest.raises(BadTopic, match="no key of a saga"):
                await checkout.start(db, "7/8", Basket("tea"))
            with pytest.raises(msgspec.ValidationError):
                await checkout.start(db, "9", {"sku": 1})

        async def asks_payments() -> bool:
            async with shop.stores["orders"].read() as db:
                seen = await checkout.state(db, "7")
            return seen is not None and seen.step == "authorize"

        await eventually(asks_payments, within=30)
        async with shop.workers["orders"].routed.transaction() as db:
            assert await checkout.cancel(db, "7")
            assert not await checkout.cancel(db, "7")
            assert not await checkout.extend(db, "7", 60)
            assert await checkout.state(db, "8") is None
        await shop.up("payments")
        await eventually(lambda: shop.ended("7"), within=30)
        assert await shop.work("7") == {"reserve": "undone", "authorize": "undone"}


async def test_whoever_cancels_and_whoever_goes_on_take_turns(running: Running) -> None:
    orders = [f"o{n}" for n in range(30)]

    async def cancel(order: str) -> None:
        async with running.workers["orders"].routed.transaction() as db:
            await running.shop.checkout.cancel(db, order)

    await running.start(*orders)
    await asyncio.gather(*map(cancel, orders[::2]))
    await eventually(lambda: running.ended(*orders), within=60)
    await eventually(running.at_rest, within=30)
    for order, (how, times) in (await running.ends()).items():
        did = await running.work(order)
        assert times == 1
        assert set(did.values()) == ({"done"} if how == "completed" else {"undone"}), (order, how, did)


async def test_a_failure_that_somebody_may_mend_is_given_time(running: Running) -> None:
    await running.start("card-7")

    async def extended() -> bool:
        async with running.stores["orders"].read() as db:
            seen = await running.shop.checkout.state(db, "card-7")
        return seen is not None and seen.step == "authorize" and (seen.late or 0) - seen.started > 45_000

    await eventually(extended, within=30)
    other_card = Authorized("another card")
    await running.workers["payments"].routed.publish("shop/payments/card-7/authorized", other_card, {}, "")
    await eventually(lambda: running.ended("card-7"), within=30)
    assert await running.ends() == {"card-7": ("completed", 1)}
    async with running.stores["orders"].read() as db:
        seen = await running.shop.checkout.state(db, "card-7")
    assert seen is not None
    assert seen.data == Basket("tea", "another card")


async def test_a_function_of_the_application_that_raises_changes_nothing(running: Running) -> None:
    checkout, told = running.shop.checkout, list[str]()

    async def meddles(db: Transaction, turn: Saga.Turn) -> None:
        told.append(turn.what)
        if turn.what == "extended":
            await checkout.cancel(db, turn.key)

    checkout._on_fact = meddles

    async def place() -> None:
        async with running.workers["orders"].routed.transaction() as db:
            await checkout.start(db, "7", Basket("tea"))
            await checkout.extend(db, "7", 60)

    with pytest.raises(Misconfigured, match="moved the saga of its own turn"):
        await place()
    assert told == ["extended", "cancelled"]
    assert await running.phase("7") == ""


async def test_what_ended_long_ago_is_forgotten_by_those_who_start(running: Running) -> None:
    await running.start("7", "reserve-8", "9")
    await eventually(lambda: running.ended("7", "reserve-8", "9"), within=30)
    async with running.workers["orders"].routed.transaction() as db:
        await db.execute(sa.text("UPDATE gateway_saga SET ended = 1 WHERE key <> '9'"))
    await running.start("10")
    assert [await running.phase(order) for order in ("7", "reserve-8", "9")] == ["", "", "completed"]


async def test_a_row_that_its_table_does_not_know_any_more_is_told(running: Running) -> None:
    await running.start("7")
    await eventually(lambda: running.ended("7"), within=30)
    shorter = Saga("checkout", of="shop.orders", key="order", steps=steps()[1:], data=Basket)
    async with running.stores["orders"].read() as db:
        with pytest.raises(Misconfigured, match="past step 'reserve'"):
            await shorter.state(db, "7")


# --- what is refused before anything runs ---

ONE = Step("one", do="shop/{order}/ask", done="shop/{order}/done", within=1.0)


@pytest.mark.parametrize(
    ("of", "service", "says"),
    [
        ("orders", Service("orders"), "app.service"),
        ("shop.orders", Service("stock"), "is run by 'stock'"),
        ("shop.orders", Service("orders"), "no database"),
        ("shop.orders", Service("orders", database=Database()), "emits="),
        ("shop.orders", Service("orders", database=Database(), emits=["shop/+/ask"]), "delays="),
    ],
)
def test_a_service_that_cannot_run_it_is_refused(of: str, service: Service, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        Saga("checkout", of=of, key="order", steps=[ONE]).run_by(service)


def test_commands_may_carry_what_each_needs() -> None:
    sent = Saga("checkout", of="shop.orders", key="order", steps=[ONE], sends=lambda step, verb, data: [step, verb])
    assert (sent.emits, sent.delays) == (("shop/{order}/ask",), ("shop/orders/sagas/checkout/{order}/late",))
    assert [topic.key for topic in sent.topics] == ["{order}"]
