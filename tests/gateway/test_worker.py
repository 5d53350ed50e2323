"""One worker on a real log: what handlers get, what becomes of what they do, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import App, Context, Event, Later, Rejected, Retry, Service, Topic
from gateway.adapters.log import AppLog, DeadLetter, Log
from gateway.app import declare, services
from gateway.core.delivery import emitted_id
from gateway.core.event import Appended, Draft, Meta
from gateway.errors import NotAvailable
from gateway.letters import Address, Letters, Which, address
from gateway.settings import Settings
from gateway.worker import Worker
from tests.servers import eventually

TOPICS = [
    Topic(pattern="shop/orders/{order}/placed", key="{order}"),
    Topic(pattern="shop/stock/{order}/taken", key="{order}", retain=True),
    Topic(pattern="shop/raw/#", payload="bytes"),
    Topic(pattern="shop/noise/{n}"),
    Topic(pattern="shop/progress/{order}", ephemeral=True),
]
FAST = Retry(3, first=0.01, most=0.02)


class Order(msgspec.Struct):
    n: int


class Shop:
    """A log, and workers of one service on it."""

    def __init__(self, log: Log, url: str, service: Service) -> None:
        self.log, self.service = log, service
        self.apps = [App("shop", topics=TOPICS, services=[service])]
        self.declared = declare(Settings(), self.apps)
        services(self.declared, self.apps)
        self._url = url
        self._count = 0

    async def place(self, *numbers: int, order: str = "7", data: bytes = b"", **meta: Any) -> None:
        for n in numbers:
            await self.send(f"shop/orders/{order}/placed", data or b'{"n":%d}' % n, f"{order}-{n}", **meta)

    async def send(self, topic: str, data: bytes, id: str, **meta: Any) -> None:
        found = self.declared.find(topic)
        draft = Draft(Event(topic, data, id, Meta(**meta)), found.key)
        (answer,) = await self.log.append(found.partition, [draft], patient=True)
        assert isinstance(answer, Appended)

    @asynccontextmanager
    async def worker(self, **how: Any) -> AsyncIterator[Worker]:
        log = await Log.open(self._url, [AppLog("shop", "fast")], partitions=8)
        worker = Worker(log, self.declared, "shop.stock", self.service, **{"lease": 2.0, "beat": 0.05, **how})
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop), name="worker")
        try:
            await eventually(lambda: running.done() or not worker.unready())
            yield worker
        finally:
            stop.set()
            await running
            await log.close()

    async def letters(self) -> list[DeadLetter]:
        return [letter for place in self.log.partitions() for _, letter in await self.log.dead(place)]

    async def at_rest(self) -> bool:
        try:
            states = [await self.log.groups.ask(place, "shop.stock") for place in self.log.partitions()]
        except NotAvailable:
            return False  # not begun everywhere yet
        return not any(state.lag or state.parked for state in states)

    async def emitted(self, topic: str) -> list[Event]:
        found = self.declared.find(topic)
        records = await self.log.recent_deliveries(found.partition, 100)
        return [record.event for record in records if record.event.topic == topic]


@asynccontextmanager
async def shop(url: str, service: Service) -> AsyncIterator[Shop]:
    log = await Log.open(url, [AppLog("shop", "fast")], partitions=8)
    running = asyncio.create_task(log.run(), name="log")
    try:
        yield Shop(log, url, service)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await log.close()


def stock(handle: Callable[..., Awaitable[object]], **how: Any) -> Service:
    made = Service("stock", emits=["shop/stock/#", "shop/progress/#"])
    made.on("shop/orders/{order}/placed", **{"retry": FAST, **how})(handle)
    return made


async def test_a_handler_gets_the_typed_payload_and_its_context(log_server: str) -> None:
    seen: list[tuple[Order, str, int, str]] = []

    async def handle(order: Order, context: Context) -> None:
        seen.append((order, context.variables["order"], context.attempt, context.event.id))

    async with shop(log_server, stock(handle)) as one:
        await one.place(1, 2)
        await one.send("shop/noise/1", b"{}", "noise")
        async with one.worker():
            await eventually(one.at_rest)
        assert seen == [(Order(1), "7", 1, "7-1"), (Order(2), "7", 1, "7-2")]
        assert await one.letters() == []


async def test_what_it_emits_has_the_same_ids_each_time_and_says_where_it_comes_from(log_server: str) -> None:
    async def handle(order: Order, context: Context) -> None:
        context.emit("shop/progress/7", {"n": 0})
        made = context.emit("shop/stock/7/taken", order, headers={"a": "b"})
        context.emit("shop/stock/8/taken", b'{"n":8}')
        assert made == emitted_id("7-1", "shop.stock", 1)

    async with shop(log_server, stock(handle)) as one:
        await one.place(1, traceparent="00-1-2-01")
        async with one.worker():
            await eventually(one.at_rest)
        (taken,) = await one.emitted("shop/stock/7/taken")
        assert (taken.data, taken.id) == (b'{"n":1}', emitted_id("7-1", "shop.stock", 1))
        meta = taken.meta
        assert (meta.cause, meta.traceparent, meta.producer, meta.via) == (
            "7-1",
            "00-1-2-01",
            "service:shop.stock",
            "service",
        )
        assert meta.headers == {"a": "b"}
        assert [event.data for event in await one.emitted("shop/stock/8/taken")] == [b'{"n":8}']


async def test_every_way_to_fail_and_its_dead_letter(log_server: str) -> None:
    tries: dict[int, int] = {}

    async def handle(order: Order, context: Context) -> None:
        tries[order.n] = tries.get(order.n, 0) + 1
        match order.n:
            case 1:
                raise Rejected("we are closed")
            case 2:
                raise ValueError("always")
            case 3:
                await asyncio.sleep(60)
            case 4:
                context.emit("shop/orders/7/placed", order)
            case 5 if tries[5] == 1:
                raise Later(0.01)
            case 6:
                raise asyncio.CancelledError
            case 7 if tries[7] == 1:
                raise ValueError("once")

    async with shop(log_server, stock(handle, timeout=0.1)) as one:
        for n in range(1, 9):
            await one.place(n, order=str(n))
        await one.place(9, order="9", data=b'{"n":"x"}')
        async with one.worker() as worker:
            await eventually(one.at_rest)
            text = worker.render()[0].decode()
        letters = {letter.id: letter for letter in await one.letters()}
        reasons = {id: (letter.reason, letter.attempts) for id, letter in letters.items()}
        assert reasons == {
            "1-1": ("rejected", 1),
            "2-2": ("gave_up", 3),
            "3-3": ("gave_up", 3),
            "4-4": ("gave_up", 3),
            "6-6": ("gave_up", 3),
            "9-9": ("schema", 1),
        }
        assert (tries[5], tries[7], tries[8]) == (2, 2, 1)
        letter = letters["2-2"]
        assert (letter.error, letter.group, letter.key) == ("ValueError: always", "shop.stock", "2")
        assert "ValueError: always" in letter.traceback
        assert letters["3-3"].error == "TimeoutError: not done within 0.1 s"
        assert "does not declare that it emits" in letters["4-4"].error
        assert 'gateway_dead_letters_total{reason="gave_up",service="shop.stock"} 4.0' in text
        assert 'gateway_lag{service="shop.stock"}' in text


async def test_what_is_too_old_is_not_handled(log_server: str) -> None:
    async def handle(event: Event, context: Context) -> None:
        raise AssertionError("too late for that")

    async with shop(log_server, stock(handle, expires=5)) as one:
        await one.place(1, ts=1)
        async with one.worker():
            await eventually(one.at_rest)
        assert [letter.reason for letter in await one.letters()] == ["expired"]


async def test_a_batch_holds_many_keys_and_falls_back_to_one_at_a_time(log_server: str) -> None:
    batches: list[list[int]] = []

    async def handle(orders: list[Order], contexts: list[Context]) -> None:
        batches.append([order.n for order in orders])
        if any(order.n == 3 for order in orders):
            raise ValueError("three")
        for context in contexts:
            context.emit(f"shop/stock/{context.variables['order']}/taken", {})

    async with shop(log_server, stock(handle, batch=50)) as one:
        place = one.declared.find("shop/orders/0/placed").partition
        # Of one partition, so that they are read together.
        names = [str(n) for n in range(500) if one.declared.find(f"shop/orders/{n}/placed").partition == place]
        for n, name in enumerate(names[:6]):
            await one.place(n, order=name)
        await one.place(9, order=names[9], data=b"{}")
        async with one.worker():
            await eventually(one.at_rest)
        assert {letter.id: letter.reason for letter in await one.letters()} == {
            f"{names[3]}-3": "gave_up",
            f"{names[9]}-9": "schema",
        }
        assert max(map(len, batches)) > 1
        assert batches.count([3]) == 3
        emitted = [len(await one.emitted(f"shop/stock/{name}/taken")) for name in names[:6]]
        assert emitted == [1, 1, 1, 0, 1, 1]


async def test_raw_payloads_and_text(log_server: str) -> None:
    seen: list[object] = []
    made = Service("stock")

    async def raw(data: bytes, context: Context) -> None:
        seen.append(data)

    async def text(data: str, context: Context) -> None:
        seen.append(data)

    made.on("shop/raw/bytes")(raw)
    made.on("shop/raw/text", retry=FAST)(text)
    async with shop(log_server, made) as one:
        await one.send("shop/raw/bytes", b"\xff", "1")
        await one.send("shop/raw/text", "ü".encode(), "2")
        await one.send("shop/raw/text", b"\xff", "3")
        async with one.worker():
            await eventually(lambda: len(seen) == 2)
            await eventually(lambda: one.letters())
        assert set(seen) == {b"\xff", "ü"}
        assert [letter.reason for letter in await one.letters()] == ["schema"]


async def test_workers_share_the_partitions_and_hand_them_over(log_server: str) -> None:
    async def handle(order: Order, context: Context) -> None: ...

    async with shop(log_server, stock(handle)) as one, one.worker() as first:
        await eventually(lambda: len(first.holdings) == 8)
        async with one.worker() as second, one.worker() as third:
            await eventually(lambda: sorted(len(w.holdings) for w in (first, second, third)) == [2, 3, 3])
        await eventually(lambda: len(first.holdings) == 8)


async def test_a_paused_service_rests_and_goes_on(log_server: str) -> None:
    seen: list[int] = []

    async def handle(order: Order, context: Context) -> None:
        seen.append(order.n)

    async with shop(log_server, stock(handle)) as one:
        place = one.declared.find("shop/orders/7/placed").partition
        async with one.worker(lease=0.4) as worker:
            await eventually(lambda: place in worker.holdings)
            await one.log.groups.pause(place, "shop.stock")
            await eventually(lambda: place not in worker.holdings)
            await one.place(1)
            await one.log.groups.resume(place, "shop.stock")
            await eventually(lambda: seen == [1])


async def test_a_group_that_is_sent_back_handles_again(log_server: str) -> None:
    seen: list[int] = []

    async def handle(order: Order, context: Context) -> None:
        seen.append(order.n)

    async with shop(log_server, stock(handle)) as one:
        await one.place(1, 2)
        async with one.worker(lease=0.4):
            await eventually(one.at_rest)
            place = one.declared.find("shop/orders/7/placed").partition
            await one.log.groups.seek(place, "shop.stock", "earliest", void=True)
            await eventually(lambda: seen == [1, 2, 1, 2])


async def test_dead_letters_are_found_read_replayed_edited_and_dropped(log_server: str) -> None:
    closed = True
    seen: list[int] = []

    async def handle(order: Order, context: Context) -> None:
        if closed:
            raise Rejected("we are closed")
        seen.append(order.n)

    async with shop(log_server, stock(handle)) as one:
        await one.place(1, 2, 3, 4)
        async with one.worker(lease=0.4):
            await eventually(one.at_rest)
            letters = Letters(one.log, one.declared)
            found = [found async for found in letters.find(Which(group="shop.stock", topic="shop/#"), 10)]
            assert [letter.id for _, letter in found] == ["7-1", "7-2", "7-3", "7-4"]
            assert [f async for f in letters.find(Which(reason="schema"), 10)] == []
            assert len([f async for f in letters.find(Which(), 3)]) == 3
            assert (await letters.read(found[0][0])) == found[0][1]
            closed = False
            places = [at for at, _ in found]
            told = [(now.done, now.left_out) async for now in letters.replay("test", places[:2], 1000.0)]
            assert told == [(1, 0), (2, 0)]
            await letters.edit("test", places[2], b'{"n":33}')
            *_, last = [now async for now in letters.drop("test", places)]
            assert (last.done, last.left_out) == (1, 3)
            assert "there is no dead letter" in last.why
            await eventually(lambda: sorted(seen) == [1, 2, 33])
            await eventually(one.at_rest)
        assert await one.letters() == []


@pytest.mark.parametrize("text", ["", "shop.1", "shop.1/", "/1-0"])
def test_an_address_names_partition_and_letter(text: str) -> None:
    assert str(address("shop.1/1-0")) == "shop.1/1-0" == str(Address("shop.1", "1-0"))
    with pytest.raises(Exception, match="is no dead letter"):
        address(text)


def test_the_example_is_short() -> None:
    assert len((Path(__file__).parents[2] / "examples" / "a_service.py").read_text().splitlines()) < 30


async def test_a_slow_delivery_holds_up_its_own_key_alone(log_server: str) -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def handle(order: Order, context: Context) -> None:
        if order.n == 0:
            await go.wait()
        seen.append(context.event.id)

    made = Service("stock", concurrency=4)
    made.on("shop/orders/{order}/placed")(handle)
    async with shop(log_server, made) as one:
        await one.place(0, 1, order="7")
        for n in range(2, 60):
            await one.place(n, order=f"o{n}")
        async with one.worker():
            await eventually(lambda: len(seen) == 58)
            go.set()
            await eventually(one.at_rest)
        assert seen[58:] == ["7-0", "7-1"]
