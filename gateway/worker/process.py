"""The worker: counts its equals, leases a fair share of the partitions, and ends without losing or repeating much."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway import limits
from gateway.adapters.http_asking import Asking
from gateway.adapters.identity import new_id
from gateway.adapters.log import GroupState, Log
from gateway.adapters.metrics import WorkerMetrics
from gateway.core.declared import Declared
from gateway.core.event import Partition
from gateway.core.lanes import Item
from gateway.errors import GatewayError, NotAvailable, Unavailable
from gateway.service import Service, Start
from gateway.store import SagaCount, Store
from gateway.worker.answers import Answers
from gateway.worker.holding import Holding
from gateway.worker.job import Emits
from gateway.worker.notices import Notices
from gateway.worker.relay import Relay
from gateway.worker.routed import Routed
from gateway.worker.slots import SlotRunners
from gateway.worker.unit import Inbox
from gateway.worker.wants import Wants

_logger = logging.getLogger("gateway.worker")


class Worker:
    """One worker of one service. It keeps nothing that the log does not know; run as many as you like."""

    #: What holds a partition; faults put a broken one here.
    holding = Holding

    def __init__(
        self,
        log: Log,
        declared: Declared,
        group: str,
        service: Service,
        *,
        name: str = "",
        lease: float = limits.LEASE,
        beat: float = limits.WORKER_BEAT,
        guard: bool = False,
        store: Store | None = None,
        strays: Partition = "gateway.0",
        asking: Asking | None = None,
    ) -> None:
        """``group`` is ``app.service``; ``lease``, ``beat``: seconds. ``guard``: end the process if it is stuck.

        ``store``: the service's database, opened. ``strays``: where what belongs to no partition is buried.
        ``asking``: its way to the routes of other services.
        """
        self.log = log
        self.group = group
        self.name = name or new_id()
        self.metrics = WorkerMetrics(group, log.counters)
        self.holdings: dict[Partition, Holding] = {}
        self._service, self._declared = service, declared
        self._wants = Wants(service, declared)
        self._partitions = service.partitions(declared)
        self._emits = Emits(log, declared, group, service, asking)
        self._store = store
        self.relay = None if store is None else Relay(store, log, declared, self.name, strays)
        self._wake = self.relay.wake if self.relay else lambda: None
        #: For the service's routes.
        self.routed = Routed(self._emits, store, self._wake)
        self._start: Callable[[Partition], Awaitable[Start | int]] | None = None
        self._lease, self._beat, self._guard = lease, beat, guard
        self._lost: dict[Partition, Holding] = {}
        self._states: dict[Partition, GroupState] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._draining = False
        self._beaten_at = 0.0
        self._export()

    def stand_beside(self, group: str, start: Callable[[Partition], Awaitable[Start | int]]) -> None:
        """Before `run`: be a worker of ``group`` instead, which begins at ``start`` and has an inbox of its own.

        What it emits keeps the ids that it has from the service, so that others drop what they had.
        """
        self.group, self._start = group, start

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what runs, within ``limits.GRACE``, and hand over.

        Start: log, relay, slots, then leases. End: membership, leases, slots, relay, log.
        """
        inbox = None if self._store is None else Inbox(self._store, self.group, self._wake)
        answers = Answers(self.log, self._declared, self._emits.group, self.metrics.unanswered)
        notices = Notices(self.log, self._declared, self._emits.group, self._service)
        self._slots = SlotRunners(
            self._service.concurrency, self._wants.widest, self._emits, answers, self.metrics, notices, inbox
        )
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            relay = group.create_task(self.relay.run(), name="relay") if self.relay else None
            slots = group.create_task(self._slots.run(), name="slots")
            counting = group.create_task(self._count_sagas(), name="sagas")
            looking = group.create_task(self._look(), name="look")
            delay = group.create_task(self.metrics.watch_loop(), name="loop-delay")
            balance = group.create_task(self._balance(group), name="balance")
            _logger.info("worker %s of %s", self.name, self.group)
            await stop.wait()
            self._draining = True
            balance.cancel()
            await asyncio.wait([balance])
            await self._leave()
            if self.relay is not None and relay is not None:
                self.relay.end()
                await asyncio.wait([relay], timeout=limits.GRACE)
                relay.cancel()
            for task in (counting, looking, delay, slots, log):
                task.cancel()
        if self._guard:
            faulthandler.cancel_dump_traceback_later()

    def redeclare(self, declared: Declared) -> None:
        """Know ``declared`` from now on, by which what the service takes must stand where it did."""
        self._declared.become(declared)
        self._wants.forget()

    def unready(self) -> list[str]:
        """Why it does not work now; nothing when all is well."""
        reasons = ["draining: this process is going down"] if self._draining else []
        if not self._beaten_at:
            reasons.append("it has not joined its group yet")
        return reasons + (self.relay.unready() if self.relay else []) + self.log.unready()

    def render(self) -> tuple[bytes, str]:
        return self.metrics.render()

    async def _leave(self) -> None:
        try:
            await self.log.groups.leave(self.group, self.name)
        except GatewayError as error:
            _logger.warning("the other workers were not told: %s", error)
        for holding in self.holdings.values():
            holding.leave()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=limits.GRACE + limits.CANCEL_AGAIN)
            for task in late:
                # The log is away, or a handler will not be cancelled: the leases expire.
                task.cancel()

    async def _look(self) -> None:
        armed = 0.0
        while True:
            await asyncio.sleep(limits.LOOK_AT_SLOTS)
            now = asyncio.get_running_loop().time()
            holdings = list(self.holdings.values())
            self._slots.look(now, holdings)
            for holding in holdings:
                holding.look(now)
            if self._guard and now - armed > limits.STUCK / 20:
                faulthandler.dump_traceback_later(limits.STUCK, exit=True)
                armed = now

    # --- who has which partition ---

    async def _balance(self, group: asyncio.TaskGroup) -> None:
        why = ""
        while True:
            try:
                alive = await self.log.groups.beat(self.group, self.name)
                self._beaten_at = asyncio.get_running_loop().time()
                await self._share(alive, group)
                await self._ask()
                why = ""
            except GatewayError as error:
                if error.code != why:  # once per reason, not per beat
                    _logger.warning("leases wait: %s", error)
                why = error.code
            self._changed.clear()
            try:
                async with asyncio.timeout(self._beat):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _share(self, alive: list[str], group: asyncio.TaskGroup) -> None:
        """Have as many partitions as any other, give or take one."""
        rank = alive.index(self.name) if self.name in alive else 0
        share, over = divmod(len(self._partitions), max(1, len(alive)))
        share += rank < over
        held = [holding for holding in self.holdings.values() if not holding.leaving]
        for holding in held[share:]:
            holding.leave()
        # Each begins to ask elsewhere, so that not all ask for the same ones.
        first = rank * len(self._partitions) // max(1, len(alive))
        away: Unavailable | None = None
        for partition in self._partitions[first:] + self._partitions[:first]:
            if len(held) >= share:
                break
            if partition in self.holdings or not self.log.reaches(partition) or self._lingers(partition):
                continue
            try:
                start = self._service.start if self._start is None else await self._start(partition)
                lease = await self.log.groups.take(partition, self.group, self.name, start, self._lease)
            except Unavailable as error:  # of this partition, where each is on a node of its own
                away = away or error
                continue
            if lease is None:
                continue
            holding = self.holding(self.log, lease, self._wants, self._slots, self.name, self._lease)
            self.holdings[partition] = holding
            held.append(holding)
            task = group.create_task(holding.run(), name=f"hold {partition}")
            self._tasks.add(task)
            task.add_done_callback(lambda task, holding=holding: self._ended(task, holding))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        if away is not None:
            raise away

    def _lingers(self, partition: Partition) -> bool:
        """Whether a handler still runs that was cancelled with its lease: under our name we would have it at once."""
        before = self._lost.get(partition)
        if before is None or not self._slots.runs(before):
            self._lost.pop(partition, None)
            return False
        return True

    def _ended(self, task: asyncio.Task[None], holding: Holding) -> None:
        self._tasks.discard(task)
        if self.holdings.get(holding.partition) is holding:
            del self.holdings[holding.partition]
            self._states.pop(holding.partition, None)
            self._lost[holding.partition] = holding
        if not holding.leaving:
            self.metrics.fenced.inc()
            self._changed.set()

    async def _ask(self) -> None:
        """How far the group is in what we hold: for the metrics."""
        for partition in [name for name in self.holdings if self.log.reaches(name)]:
            try:
                self._states[partition] = await self.log.groups.ask(partition, self.group)
            except (NotAvailable, Unavailable):
                continue  # it was forgotten this moment, or a node of a cluster is away; its holder will be fenced

    # --- what is seen ---

    async def _count_sagas(self) -> None:
        """Of the workers of a service, the one that empties its outbox counts; the others say 0."""
        while self._store is not None and self.relay is not None and self._service.sagas:
            with suppress(GatewayError):  # then the outbox waits too, and says why
                leads = self.relay.leads
                for one in await self._store.sagas(self._service.sagas) if leads else []:
                    self.metrics.sagas(one)
                if not leads:
                    for name in self._service.sagas:
                        self.metrics.sagas(SagaCount(name))
            await asyncio.sleep(limits.SAGA_COUNTED_EVERY)

    def _export(self) -> None:
        gauge, counted = self.metrics.of_service, self.metrics.counted
        gauge("gateway_partitions_held", "Partitions that this worker leases", lambda: len(self.holdings))
        gauge("gateway_lag", "Entries behind the group's cursor, of what it holds", self._lag)
        gauge("gateway_pending", "Events claimed and not finished", lambda: sum(len(h.out) for h in self._all))
        gauge("gateway_parked", "Events that wait for another try", lambda: sum(h.lanes.parked for h in self._all))
        gauge("gateway_oldest_unfinished_seconds", "Age of the oldest unfinished event", self._oldest)
        if (relay := self.relay) is not None:
            gauge("gateway_relay_leads", "Whether this worker empties the outbox", lambda: relay.leads)
            counted("gateway_relayed", "Events from the outbox that are in the log", lambda: relay.sent)
            counted("gateway_relay_buried", "Events from the outbox that the log refused", lambda: relay.buried)

    @property
    def _all(self) -> list[Holding]:
        return list(self.holdings.values())

    def _lag(self) -> float:
        return sum(state.lag for state in self._states.values())

    def _oldest(self) -> float:
        oldest: list[Item] = [item for item in (holding.lanes.oldest for holding in self._all) if item is not None]
        ages = [time.time() - item.ts / 1000 for item in oldest if item.ts]
        return max(0.0, *ages) if ages else 0.0
