"""Everybody at once: devices that measure, customers who buy, people who talk; and what must be true of it after."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import pytest

from devices.alerting.rules import Rule
from devices.alerting.tables import ALERTS
from devices.analytics.tables import WINDOWS
from devices.events import Alert, Window
from devices.registry.tables import PRESENCE
from devices.shadow.tables import SHADOWS
from devices.storage.tables import ARRIVALS
from ecommerce.orders.tables import KEYS, ORDERS
from gateway.adapters.child import Server
from gateway.core.topic import matches
from tests.chat import ledger as talks
from tests.devices import ledger as readings
from tests.ecommerce import books
from tests.servers import Condition, eventually
from tests.whole import checker, evidence, shadows
from tests.whole.customers import Account, Customer, open_shop, stocked
from tests.whole.fleet import MUTE, STEADY, Fleet
from tests.whole.stage import CHANNEL, SECRET, WITHIN, Whole
from tests.whole.talkers import Talker, history, rooms_of
from tests.whole.watcher import Watcher, watching

DEVICES, CUSTOMERS, TALKERS, ROOMS = 20, 8, 6, ("tea", "cake")
RULES: Final = {
    "warm": Rule("above", metric="temp", threshold=21.0, clear=20.5, channels=(CHANNEL,)),
    "dry": Rule("below", devices="d-1*", metric="humidity", threshold=48.0, lasting=2.0),
}
#: Made when the one that stays away has left. So long that the rest is not silent between two looks on time, whoever
#: is killed and however long a busy machine takes to start it again (see `devices.limits.LOOK_LATE`).
SILENCE: Final = {"mute": Rule("silent", devices=f"{STEADY}*", after=60.0)}
#: (device, topic, reason) of the one thing that nobody can store.
PLANTED: Final = {("devices.storage", "devices/d-00/telemetry", "rejected")}


class Load:
    """Use `load`."""

    def __init__(
        self, stage: Whole, fleet: Fleet, customers: list[Customer], talkers: list[Talker], watcher: Watcher
    ) -> None:
        self.stage, self.fleet, self.customers, self.talkers, self.watcher = stage, fleet, customers, talkers, watcher
        self._stop = asyncio.Event()
        self._shopping = [self._begun(one.shops(self._stop), "customer") for one in customers]
        self._talking = [self._begun(one.talks(self._stop), "talker") for one in talkers]
        self._wishes = shadows.Wishes(stage, [f"d-{n:02}" for n in range(DEVICES)])
        self._wanting = self._begun(self._wishes.wants(self._stop), "operator")
        #: All that was told, once everything has ended.
        self.log: list[evidence.Told] = []
        #: From when on the broker may have had what the log had not, to when a bridge took it from there again.
        self.windows: list[tuple[float, float]] = []
        #: Whether something must have died with a broker.
        self.loses = False

    async def moves(self) -> None:
        """Wait until something new got through everywhere: orders, messages, and a reading of every device."""
        orders, words, begun = self._orders(), self._words(), time.monotonic()
        await self._until(lambda: self._orders() > orders and self._words() > words)
        await self._stored(begun)

    async def joins(self, name: str) -> None:
        """A device comes that nobody knew: the broker lets it in, and what it measures is stored."""
        self.fleet.joins(name, await _registered(self.stage, name))
        await self.moves()

    async def kill(self, *names: str, then: str = "") -> None:
        """Kill these at one moment, and ``then`` another while they are away; returns when all are back and ready.

        What the broker has while the bridge is away dies with it, and must be a gap; what the bridge has while the log
        server is away must come again.
        """
        began = time.monotonic()
        broker = "mosquitto" in (*names, then)
        mark = await self._stored(began) if broker else 0.0
        were = self.stage.kill(*names)
        if then:
            await self._until(self._unsaved())
            were |= self.stage.kill(then)
        await self.stage.replaced(were)
        if broker:
            # Until the bridge is back: a broker whose file is older than the bridge's session keeps nothing for it.
            self.windows.append((mark, time.monotonic()))
            self.loses |= "bridge" in names and then == "mosquitto"
        self._tells(" ".join((*names, *(("then", then) if then else ()))), began)

    async def kill_server(self, server: Server) -> None:
        """Kill one that is not of the gateway, and start it again."""
        began = time.monotonic()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await self.stage.wholly()
        self._tells(server.name, began)

    def _tells(self, what: str, began: float) -> None:
        print(f"  · {what}: back after {time.monotonic() - began:.1f} s")  # noqa: T201 - it is watched

    async def ends(self) -> None:
        """Stop, and wait until everything has come to its end."""
        await self._until(self._mute)
        self._stop.set()
        self.fleet.stop()
        await asyncio.gather(*self._shopping, self._wanting)
        await self._until(lambda: self.fleet.ended and not any(one.busy for one in self.talkers))
        began = time.monotonic()
        # What the broker has, no group and no outbox tells: all readings, and behind them that everybody has left.
        await self._until(self._kept)
        await self._until(self._left)
        await evidence.rests(self.stage)
        self.log = await evidence.log(self.stage)
        print(f"  · at rest after {time.monotonic() - began:.1f} s: {await self._sizes()}")  # noqa: T201 - it is watched

    async def faults(self) -> list[str]:
        """Say what is wrong, once everything has ended."""
        return [
            *await self._readings(),
            *await self._orders_are(),
            *await self._rooms(),
            *await self._letters(),
            *await self._shadows(),
            *(["nothing died with the broker"] if self.loses and not await self._lost() else []),
            *([] if any(one.resumed for one in self.talkers) else ["nobody resumed"]),
        ]

    def _told(self, filter: str) -> list[evidence.Told]:
        return [one for one in self.log if matches(filter, one.topic)]

    async def _sizes(self) -> str:
        lost, resumed = await self._lost(), sum(one.resumed for one in self.talkers)
        return (
            f"{len(self.fleet.acks)} messages of devices, {len(lost)} readings that died with the broker, "
            f"{self._orders()} orders, {self._words()} words, {resumed} resumes, "
            f"{len(self.stage.mails.got)} mails, {len(self.stage.pager.got)} webhooks"
        )

    async def _lost(self) -> set[tuple[str, str, int]]:
        """Return what the broker acknowledged and storage does not have."""
        (found,) = await evidence.rows(self.stage, "devices.storage", ARRIVALS)
        there = {(row["device"], row["boot"], row["seq"]) for row in found}
        return {name for one, _ in self.fleet.acks for name in _names(one)} - there

    async def _readings(self) -> list[str]:
        stage, fleet = self.stage, self.fleet
        for message, at in fleet.acks:
            # What the broker alone had, dies with it.
            message.acknowledged = not self._died(at)
        events = self._told("devices/+/telemetry")
        in_log = checker.ledger_of((one.topic.split("/")[1], one.data) for one in events)
        await self._until(lambda: not self.watcher.faults(events, ended=False))
        kept = await readings.read(stage.url_of("devices.storage"))
        alerts = [msgspec.convert(one.data, Alert) for one in self._told("devices/+/alerts/+")]
        away = {MUTE: max(one.ts for one in events if one.topic == f"devices/{MUTE}/telemetry")}
        hooks = {f"{a.fingerprint}-{a.what}-{a.occurred}-{CHANNEL}": a for a in alerts if a.rule == "warm"}
        (standing,) = await evidence.rows(stage, "devices.alerting", ALERTS)
        (windows,) = await evidence.rows(stage, "devices.analytics", WINDOWS)
        spans = [(one.topic, one.data) for one in self._told("devices/+/windows/+")]
        return [
            *(f"the broker refused {one}" for one in fleet.refused),
            *(f"sent, {fault}" for fault in readings.faults(fleet.ledger, kept)),
            *(f"in the log, {fault}" for fault in readings.faults(in_log, kept)),
            *checker.gap_faults(fleet.ledger, kept),
            *checker.loss_faults(fleet.ledger, kept, await self._called_lost()),
            *readings.alert_faults(in_log, kept, RULES | SILENCE, alerts, away),
            *checker.standing_faults(standing, alerts),
            *checker.hook_faults(stage.pager.got, hooks, SECRET),
            *checker.window_faults(kept, windows, [_window(*one) for one in spans]),
            *(["no alert was told"] if not alerts else []),
            *self.watcher.faults(events),
        ]

    async def _orders_are(self) -> list[str]:
        placed = {key: order for one in self.customers for key, order in one.orders.items()}
        orders, keys = await evidence.rows(self.stage, "ecommerce.orders", ORDERS, KEYS)
        again = {}
        for one in self.customers:
            for key in one.orders:
                again[key] = (await one.asks_for(key)).json().get("order")
        people = {one.account.user: one.account.mail for one in self.customers}
        told = self._told("ecommerce/orders/+/status/+")
        declined = [one.topic.split("/")[2] for one in told if one.data["what"] == "declined"]
        mails = [checker.Mail(str(m["Message-ID"]), str(m["To"]), str(m["Subject"])) for m in self.stage.mails.got]
        return [
            *checker.mail_faults(mails, orders, declined, people),
            *books.faults(await evidence.books(self.stage)),
            *checker.order_faults(placed, orders, keys),
            *(
                f"{key} was {placed[key]}, and asked again {order}"
                for key, order in again.items()
                if order != placed[key]
            ),
        ]

    async def _rooms(self) -> list[str]:
        first = self.talkers[0]
        histories = {view.room: await history(first.account, view.room) for view in first.views.values()}
        for one in self.talkers:
            one.ends = {room: len(past) for room, past in histories.items()}
        for task in (await asyncio.wait(self._talking, timeout=WITHIN))[0]:
            task.result()
        acked = [said for one in self.talkers for said in one.acked]
        seen = {(view.room, one.account.user): view.shown for one in self.talkers for view in one.views.values()}
        wrong = [fault for one in self.talkers for view in one.views.values() for fault in view.wrong]
        return [*talks.faults(acked, histories, seen), *wrong]

    async def _letters(self) -> list[str]:
        return checker.letter_faults(await evidence.letters(self.stage), PLANTED)

    async def _shadows(self) -> list[str]:
        (rows,) = await evidence.rows(self.stage, "devices.shadow", SHADOWS)
        log = [one for one in self.log if one.topic.startswith("devices/") and "/shadow" in one.topic]
        return shadows.faults(rows, log, self._wishes.taken)

    async def _called_lost(self) -> dict[tuple[str, str], int]:
        found = {}
        for device in {one.device for one in self.fleet.ledger.messages}:
            for run in (await self.stage.ask("GET", f"/devices/storage/{device}/losses"))["items"]:
                found[device, run["boot"]] = run["lost"]
        return found

    async def _stored(self, since: float) -> float:
        """Wait until each device had a reading acknowledged after ``since``; return when all that was is stored."""
        await self._until(lambda: {one.device for one, at in self.fleet.acks if at > since} >= self.fleet.names)
        mark = time.monotonic()
        await self._until(self._kept)
        return mark

    async def _kept(self) -> bool:
        """Whether all that was acknowledged is stored; what died with a broker does not come any more."""
        right = {name for one, at in self.fleet.acks if not self._died(at) for name in _names(one)}
        (found,) = await evidence.rows(self.stage, "devices.storage", ARRIVALS)
        return right <= {(row["device"], row["boot"], row["seq"]) for row in found}

    async def _mute(self) -> bool:
        """Whether it was noticed that one stays away."""
        (alerts,) = await evidence.rows(self.stage, "devices.alerting", ALERTS)
        return ("mute", MUTE, "firing") in {(row["rule"], row["device"], row["state"]) for row in alerts}

    async def _left(self) -> bool:
        (presence,) = await evidence.rows(self.stage, "devices.registry", PRESENCE)
        return not any(row["online"] for row in presence)

    def _unsaved(self) -> Condition:
        """Whether the broker has acknowledged what it alone has, and in its memory alone.

        What was sent before now, the one that died may have passed on, however late we hear of it; and what was sent
        before the broker wrote its file, as it does each minute, is there when it is back.
        """
        written, sent = -1.0, set[tuple[str, str, int]]()

        def met() -> bool:
            nonlocal written, sent
            if (now := self.stage.broker_saved) != written:
                written, sent = now, {name for one in list(self.fleet.ledger.messages) for name in _names(one)}
            return any(_names(one) - sent for one, _ in self.fleet.acks[-DEVICES:])

        return met

    def _died(self, at: float) -> bool:
        """Whether what the broker acknowledged ``at`` that time may have died with it."""
        return any(begin <= at <= end for begin, end in self.windows)

    async def _until(self, met: Condition) -> None:
        async def well() -> bool:
            await asyncio.sleep(0.2)  # the services need the time more than we do
            for task in (*self._shopping, *self._talking, self._wanting):
                if task.done():
                    task.result()
            answer = met()
            return bool(await answer if inspect.isawaitable(answer) else answer)

        try:
            await eventually(well, WITHIN)
        except pytest.fail.Exception:
            pytest.fail(f"not true within {WITHIN:g} s: {inspect.getsource(met).strip()}")

    def _orders(self) -> int:
        return sum(len(one.orders) for one in self.customers)

    def _words(self) -> int:
        return sum(len(one.acked) for one in self.talkers)

    def _begun(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def cancel(self) -> None:
        for task in (*self._shopping, *self._talking, self._wanting):
            task.cancel()
        await asyncio.gather(*self._shopping, *self._talking, self._wanting, return_exceptions=True)


@asynccontextmanager
async def load(stage: Whole, seed: int) -> AsyncIterator[Load]:
    """Open the shop, the rooms and the fleet; in the block everybody is at it."""
    await stocked(stage)
    accounts = [Account(stage.http, f"p-{n}") for n in range(CUSTOMERS + TALKERS)]
    await asyncio.gather(*(one.register() for one in accounts))
    customers = [Customer(one, seed) for one in accounts[:CUSTOMERS]]
    await open_shop(customers[0])
    rooms = await rooms_of(accounts[CUSTOMERS:], list(ROOMS))
    await _ruled(stage, RULES)
    names = [f"d-{n:02}" for n in range(DEVICES)]
    words = {name: await _registered(stage, name) for name in names}
    ws = stage.running.edge.replace("http", "ws", 1) + "/connection/websocket"
    with (
        # The one that leaves at once may have left before anybody watched.
        watching(stage, [f"devices/{name}/telemetry" for name in names if name != MUTE]) as watcher,
        Fleet(int(stage.running.mqtt.rpartition(":")[2]), words, seed) as fleet,
    ):
        talkers = [Talker(one, ws, rooms, seed) for one in accounts[CUSTOMERS:]]
        running = Load(stage, fleet, customers, talkers, watcher)
        try:
            await running.moves()
            await eventually(lambda: MUTE in fleet.away, WITHIN)
            await _ruled(stage, SILENCE)
            print(f"  · everybody is at it after {time.monotonic() - stage.began:.1f} s")  # noqa: T201 - it is watched
            yield running
        finally:
            await running.cancel()


async def _ruled(stage: Whole, rules: Mapping[str, Rule]) -> None:
    for name, rule in rules.items():
        await stage.ask("PUT", f"/devices/alerting/rules/{name}", msgspec.to_builtins(rule))


def _window(topic: str, data: Any) -> tuple[str, str, Window]:
    _, device, _, metric = topic.split("/")
    return device, metric, msgspec.convert(data, Window)


def _names(message: readings.Message) -> set[tuple[str, str, int]]:
    return {(message.device, one.boot, one.seq) for one in message.readings}


async def _registered(stage: Whole, name: str) -> str:
    """Make a device, and return its password."""
    return str((await stage.ask("POST", "/devices/registry/", {"device": name}))["password"])
