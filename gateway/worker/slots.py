"""The slots of a worker: so many deliveries at a time, each cut short when its time is over, and no task per event."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from gateway import limits
from gateway.adapters.metrics import WorkerMetrics
from gateway.core.delivery import ACK, Bury, Park, judge
from gateway.errors import GatewayError
from gateway.store import Outgoing, Seen
from gateway.worker.answers import Answers
from gateway.worker.holding import Holding
from gateway.worker.job import Delivery, Emits, Job
from gateway.worker.notices import Notices
from gateway.worker.unit import Inbox, Unit
from gateway.worker.wants import Ready

_NEVER = float("inf")


class Slot:
    """One delivery at a time, or one batch."""

    __slots__ = ("batch", "cuts", "deadline", "holding", "task", "why")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.deadline = _NEVER
        #: Whose delivery runs; None between two.
        self.holding: Holding | None = None
        #: Of a batch, whose deliveries run with it.
        self.batch: list[Holding] = []
        #: Why it was cut short: ``late`` or ``dropped``; empty where it was not, and a cancellation is not ours.
        self.why = ""
        #: How many cancels of its task are ours.
        self.cuts = 0

    def cut(self, why: str) -> None:
        self.why = self.why or why
        if self.task is not None:
            self.cuts += 1
            self.task.cancel()


class SlotRunners:
    """Runs jobs in the order in which they are handed in."""

    def __init__(
        self,
        count: int,
        widest: int,
        emits: Emits,
        answers: Answers,
        metrics: WorkerMetrics,
        notices: Notices,
        inbox: Inbox | None = None,
    ) -> None:
        """``inbox``: of the service's database, where it has one."""
        self.alone = asyncio.Lock()
        self.answers = answers
        self.notices = notices
        self._inbox = inbox
        self._emits = emits
        self._metrics = metrics
        self._widest = widest
        self._slots = [Slot() for _ in range(count)]
        self._apart = Slot()
        self._jobs: deque[Job | Ready] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._loop = asyncio.get_running_loop()
        #: Partitions that have something to do, as of the last look.
        self._active = 1
        self._ended = 0
        #: How many are claimed ahead of the slots: what is done in half of the time between two looks.
        self._ahead = 0

    async def run(self) -> None:
        """Run jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, slot in enumerate(self._slots):
                slot.task = group.create_task(self._work(slot), name=f"slot {number}")

    def look(self, now: float, holdings: Sequence[Holding]) -> None:
        """Cut short what is late, and see how fast we are. Asked every ``limits.LOOK_AT_SLOTS``."""
        for slot in (*self._slots, self._apart):
            if slot.deadline < now:
                slot.cut("late")
                slot.deadline = now + limits.CANCEL_AGAIN
        self._active = max(1, sum(1 for one in holdings if len(one.lanes)))
        self._ahead, self._ended = min(limits.CLAIM, self._ended // 2), 0

    # --- for holdings ---

    @property
    def hungry(self) -> bool:
        return bool(self._idle) and not self._jobs

    def share(self) -> int:
        return max(1, len(self._slots) * self._widest // self._active) + self._ahead

    def hand(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            ready = job.want.ready
            if not ready.batch:
                self._jobs.append(job)
                continue
            if not ready.waiting:
                self._jobs.append(ready)
            ready.waiting.append(job)
        if jobs:
            self._wake_one()

    def withdraw(self, holding: Holding) -> None:
        kept: deque[Job | Ready] = deque()
        for job in self._jobs:
            if isinstance(job, Job):
                if job.holding is holding:
                    holding.forget(job.item)
                    continue
            else:
                for one in [one for one in job.waiting if one.holding is holding]:
                    job.waiting.remove(one)
                    holding.forget(one.item)
            kept.append(job)
        self._jobs = kept

    def cancel(self, holding: Holding) -> None:
        for slot in (*self._slots, self._apart):
            if slot.holding is holding:
                slot.cut("dropped")

    def runs(self, holding: Holding) -> bool:
        """Whether a delivery of ``holding`` has not ended."""
        return any(slot.holding is holding or holding in slot.batch for slot in (*self._slots, self._apart))

    async def run_alone(self, job: Job) -> None:
        # A slot of its own each time: one whose holding was lost meanwhile ends cut, and would cut the next short.
        slot = self._apart = Slot()
        slot.task = asyncio.current_task()
        try:
            await self._deliver(slot, job)
        finally:
            self._apart = Slot()

    # --- the work ---

    def _wake_one(self) -> None:
        while self._idle and not self._waking:
            first = self._idle.popleft()
            if not first.done():
                first.set_result(None)
                self._waking = True

    async def _work(self, slot: Slot) -> None:
        turn = self._loop.time()
        while True:
            while not self._jobs:
                idle = self._loop.create_future()
                self._idle.append(idle)
                await idle
                self._waking = False
                turn = self._loop.time()
            job = self._jobs.popleft()
            if self._jobs:
                self._wake_one()
            if isinstance(job, Job):
                if job.holding.fresh:
                    await self._deliver(slot, job)
                else:
                    job.holding.postpone(job)
            else:
                await self._deliver_batch(slot, job, self._batch(job))
            if (now := self._loop.time()) - turn > limits.TURN:
                # Handlers that never wait would keep the loop from everybody else.
                await asyncio.sleep(0)
                turn = now

    def _batch(self, ready: Ready) -> list[Job]:
        jobs: list[Job] = []
        while ready.waiting and len(jobs) < ready.batch:
            job = ready.waiting.popleft()
            if job.holding.fresh:
                jobs.append(job)
            else:
                job.holding.postpone(job)
        if ready.waiting:
            self._jobs.append(ready)
        return jobs

    async def _deliver(self, slot: Slot, job: Job) -> None:
        ready, item, holding = job.want.ready, job.item, job.holding
        unit = self._unit([job])
        delivery = Delivery(self._emits, job.event, job.want.variables, item.attempts + 1, unit)
        error: BaseException | None = None
        began = self._loop.time()
        slot.holding, slot.deadline = holding, began + ready.timeout
        try:
            payload = ready.payload(job.event)
            if ready.batch:
                await ready.call([payload], [delivery])
                said = None
            else:
                said = await ready.call(payload, delivery)
            reply = self.answers.kept(job.event, said)
            delivery.emitted += self.answers.published(job.event, said)
            await self._leave(unit, [delivery], reply)
            await self.answers.send(job.event, reply)
        except Seen as before:
            # By a worker that died before it could say so, or that lost its lease meanwhile.
            try:
                await self.answers.send(job.event, before.reply)
            except GatewayError as raised:
                error = raised
        except asyncio.CancelledError as cut:
            error = self._cut(slot, cut, ready.timeout)
        except Exception as raised:  # noqa: BLE001 - a handler is not ours, and may raise anything
            error = raised
        finally:
            if unit is not None:
                await unit.undo()
        dropped = slot.why == "dropped"
        self._free(slot)
        self._metrics.seconds.observe(self._loop.time() - began)
        if dropped:
            holding.forget(item)
            return
        self._judge(job, error)

    async def _deliver_batch(self, slot: Slot, ready: Ready, jobs: list[Job]) -> None:
        """All at once; where that fails, one after another, as if nothing had been tried."""
        if len(jobs) == 1:
            await self._deliver(slot, jobs[0])
            return
        payloads, taken = [], []
        for job in jobs:
            try:
                payloads.append(ready.payload(job.event))
            except Exception as error:  # noqa: BLE001 - a type's own hooks may raise anything
                self._judge(job, error)
            else:
                taken.append(job)
        if not taken:
            return
        began, failed = self._loop.time(), True
        # Whose partition is lost finds its results dropped; the others of the batch need not be cut short for it.
        slot.holding, slot.deadline = taken[0].holding, began + ready.timeout
        slot.batch = [job.holding for job in taken]
        unit = None
        try:
            if self._inbox is not None:
                seen = await self._inbox.seen([job.event.id for job in taken])
                payloads = [payload for payload, job in zip(payloads, taken, strict=True) if job.event.id not in seen]
                taken = await self._without(seen, taken)
            unit = self._unit(taken)
            deliveries = [
                Delivery(self._emits, job.event, job.want.variables, job.item.attempts + 1, unit) for job in taken
            ]
            if taken:
                await ready.call(payloads, deliveries)
                for delivery in deliveries:
                    delivery.emitted += self.answers.published(delivery.event, None)
                await self._leave(unit, deliveries)
            for job in taken:
                await self.answers.send(job.event, None)
            failed = False
        except asyncio.CancelledError as cut:
            self._cut(slot, cut, ready.timeout)
        except (Exception, Seen):  # noqa: BLE001, S110 - each is delivered alone now, and what it raises then is told
            pass
        finally:
            if unit is not None:
                await unit.undo()
        self._free(slot)
        self._metrics.seconds.observe(self._loop.time() - began)
        for job in taken:
            if not failed:
                self._judge(job, None)
            elif job.holding.leaving or job.holding.dropped:
                job.holding.forget(job.item)
            else:
                await self._deliver(slot, job)

    def _unit(self, jobs: Sequence[Job]) -> Unit | None:
        return None if self._inbox is None else self._inbox.unit([job.event.id for job in jobs])

    async def _leave(self, unit: Unit | None, deliveries: Sequence[Delivery], reply: bytes | None = None) -> None:
        """Let what was emitted leave: with the transaction where there is one, else at once."""
        if unit is not None and unit.work is not None:
            emitted = [one for delivery in deliveries for one in delivery.emitted]
            await unit.commit([Outgoing(one.draft.event, one.after) for one in emitted], reply)
            return
        for delivery in deliveries:
            if delivery.emitted:
                await self._emits.append(delivery.emitted)

    async def _without(self, seen: set[str], jobs: Sequence[Job]) -> list[Job]:
        for job in jobs:
            if job.event.id in seen:
                await self.answers.send(job.event, None)  # a reply that was sent before stays
                self._judge(job, None)
        return [job for job in jobs if job.event.id not in seen]

    def _cut(self, slot: Slot, cut: asyncio.CancelledError, timeout: float) -> BaseException:
        if not slot.why:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise cut
            return cut  # the handler raised it by itself
        late = TimeoutError(f"not done within {timeout:g} s")
        late.__cause__ = cut
        return late

    def _free(self, slot: Slot) -> None:
        slot.holding, slot.deadline, slot.batch = None, _NEVER, []
        task = asyncio.current_task()
        if task is None:
            return
        while slot.cuts and task.cancelling():
            task.uncancel()
            slot.cuts -= 1
        slot.why, slot.cuts = "", 0
        if task.cancelling():
            # A handler may lose a cancel, as `asyncio.wait_for` does before Python 3.12; the worker ends all the same.
            raise asyncio.CancelledError

    def _judge(self, job: Job, error: BaseException | None) -> None:
        self._ended += 1
        if error is None:
            self._metrics.done.inc()
            job.holding.finish(job.item, ACK)
            return
        jitter = random.random()  # noqa: S311 - spreads retries; nothing secret hangs on it
        verdict = judge(job.item.attempts + 1, error, job.want.ready.reaction.retry, jitter)
        if isinstance(verdict, Park):
            self._metrics.again.inc()
        elif isinstance(verdict, Bury):
            self._metrics.given_up.inc()
            self._metrics.dead(verdict.reason)
        job.holding.finish(job.item, verdict, error)
