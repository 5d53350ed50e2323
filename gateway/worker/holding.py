"""One leased partition: read ahead, handed out in the order of its lanes, and remembered in batches."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from gateway import limits
from gateway.adapters.log import DeadLetter, Lease, Log, Tail
from gateway.core.delivery import ACK, Bury, Verdict, crashed
from gateway.core.event import Record
from gateway.core.lanes import Changes, Item, Lanes
from gateway.errors import Fenced, TooLarge, Unavailable
from gateway.worker.answers import Answers
from gateway.worker.job import Job
from gateway.worker.notices import Notices
from gateway.worker.wants import Wants

_logger = logging.getLogger("gateway.worker")


class Slots(Protocol):
    """Where jobs go."""

    answers: Answers
    notices: Notices
    #: One suspect at a time in the whole process: if it dies, one of them is to blame and no other.
    alone: asyncio.Lock

    @property
    def hungry(self) -> bool:
        """Whether slots are idle and nothing waits for them."""

    def share(self) -> int:
        """Return how many jobs one partition may have out."""

    def hand(self, jobs: Sequence[Job]) -> None:
        """Let ``jobs`` run as soon as slots are free."""

    async def run_alone(self, job: Job) -> None:
        """Deliver ``job`` now, beside the slots."""

    def withdraw(self, holding: Holding) -> None:
        """Give back the jobs of ``holding`` that have not begun."""

    def cancel(self, holding: Holding) -> None:
        """Cut short the deliveries of ``holding``."""


class Holding:
    """Runs until its lease is lost, its group is paused, or it is told to `leave`."""

    def __init__(self, log: Log, lease: Lease, wants: Wants, slots: Slots, worker: str, ttl: float) -> None:
        self.lease = lease
        self.partition = lease.partition
        self.lanes = Lanes(lease.cursor, lease.parked, lease.suspects_to)
        #: Items that were given to slots and have not come back, by offset.
        self.out: dict[int, Item] = {}
        self.leaving = False
        self.dropped = False
        self._log, self._wants, self._slots, self._worker, self._ttl = log, wants, slots, worker, ttl
        self._tail: Tail | None = None
        self._loop = asyncio.get_running_loop()
        #: When the log last heard of us, at the latest.
        self._told_at = self._loop.time()
        self._records: dict[int, Record] = {}
        self._tracebacks: dict[int, str] = {}
        self._late: list[Job] = []
        #: Whether an alarm is set to remember what has ended, and whether it has rung.
        self._soon, self._rung = False, False
        self._asked: list[asyncio.Future[None]] = []
        self._wake, self._room, self._suspected = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._wake.set()

    async def run(self) -> None:
        """Hold the partition. When this returns nothing of it is begun any more, and another may have it."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(), name=f"read {self.partition}")
                alone = group.create_task(self._quarantine(), name=f"quarantine {self.partition}")
                await self._keep()
                reading.cancel()
                alone.cancel()
            await self.lease.release()
        except* Fenced as lost:
            _logger.warning("%s", lost.exceptions[0])
        except* Unavailable as away:
            # It expires; whoever takes it then runs a few events alone that need not be.
            _logger.warning("%s was not handed over: %s", self.partition, away.exceptions[0])
        finally:
            self.dropped = True
            self._slots.withdraw(self)
            self._slots.cancel(self)

    def leave(self) -> None:
        """Take nothing more, let what runs finish within ``limits.GRACE``, and hand over."""
        if not self.leaving:
            self.leaving = True
            self._slots.withdraw(self)
            self._loop.call_later(limits.GRACE, self._slots.cancel, self)
            self._wake.set()

    def look(self, now: float) -> None:
        """Go on where something is due."""
        due = self.lanes.next_due()
        if self._tail is not None and self._tail.position.offset > self.lanes.read:
            # What cannot be read makes no batch; it is passed all the same, or it would count as lag for ever.
            self.lanes.skip(self._tail.position.offset)
            self._wake.set()
        if (due is not None and due <= now) or now - self._told_at > self._ttl / 4 or self.lease.replays:
            self._wake.set()

    @property
    def fresh(self) -> bool:
        """Whether the lease cannot have expired yet, however slow we were: what was claimed may still be begun."""
        return self._loop.time() - self._told_at < self._ttl / 2

    def postpone(self, job: Job) -> None:
        """Keep ``job``, which found the lease not `fresh`, until the log has confirmed it."""
        self._late.append(job)
        self._wake.set()

    def finish(self, item: Item, verdict: Verdict, error: BaseException | None = None) -> None:
        """Note how a delivery ended."""
        self.out.pop(item.offset, None)
        self._wake.set()
        if self.dropped:
            return
        if error is not None and isinstance(verdict, Bury):
            item.attempts += 1
            lines = "".join(traceback.format_exception(error)).splitlines()
            self._tracebacks[item.offset] = "\n".join(lines[-limits.TRACEBACK_LINES :])
        self.lanes.settle(item, verdict, self._loop.time())
        # What is parked is read back when its time comes, unless there is room for it here.
        if verdict is ACK or (item.parked and len(self._records) > 2 * limits.PREFETCH):
            self._records.pop(item.offset, None)

    def forget(self, item: Item) -> None:
        """Take back what never began or was cut short: it counts as never claimed."""
        self.out.pop(item.offset, None)
        self._wake.set()

    # --- reading ---

    async def _read(self) -> None:
        tail = self._log.tail(self.partition)
        try:
            while True:
                try:
                    await tail.start_at(self.lease.cursor)
                    self._tail = tail
                    break
                except Unavailable:
                    await asyncio.sleep(limits.LOG_BACKOFF[1])
            async for batch in tail:
                if batch.lost:
                    _logger.warning("%s: events after %d are gone unread", self.partition, self.lanes.read)
                for record in batch.records:
                    self._take(record)
                self.lanes.skip(tail.position.offset)
                self._wake.set()
                while self.lanes.full:
                    self._room.clear()
                    await self._room.wait()
        finally:
            await tail.close()

    def _take(self, record: Record) -> None:
        want = self._wants.find(record.event.topic)
        if want is None:
            return
        added = self.lanes.add(Item(record.epoch, record.offset, want.key, ts=record.event.meta.ts))
        # What is too large is not kept while it waits: a thousand of them would be gigabytes.
        if added and _too_large(record) is None:
            self._records[record.offset] = record

    # --- keeping: the one task that hands out and remembers ---

    async def _keep(self) -> None:
        lanes = self.lanes
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.lease.paused:
                self.leave()
            if self.lease.replays:
                with suppress(Unavailable):  # `look` asks again
                    for replay in await self.lease.fresh():
                        lanes.restore(replay)
            taken = self._taken()
            if lanes.suspects:
                self._suspected.set()
            asked, self._asked = self._asked, []
            now = self._loop.time()
            claims = any(item.offset > self.lease.claimed and not item.parked for item in taken)
            if claims or asked or self._late or self._rung or now - self._told_at > self._ttl / 4:
                await self._tell()
            elif lanes.pressing:
                # Nobody waits for it: what ends within this moment is remembered with it.
                if (wait := self._told_at + limits.SETTLE_EVERY - now) <= 0:
                    await self._tell()
                elif not self._soon:
                    self._soon = True
                    self._loop.call_later(wait, self._ring)
            for waiting in asked:
                if not waiting.done():
                    waiting.set_result(None)
            if taken:
                await self._hand(taken)
            late, self._late = self._late, []
            self._slots.hand(late)
            if not lanes.full:
                self._room.set()
            if self.leaving and not self.out:
                lanes.hand_over()
                await self._tell()
                return

    def _ring(self) -> None:
        # Its own word, not the clock's: an alarm of uvloop may come a little early.
        self._rung = True
        self._wake.set()

    def _taken(self) -> list[Item]:
        if self.leaving:
            return []
        room = self._slots.share() - len(self.out)
        # Half a share at least, so that one call of the log claims many; but no slot waits for that.
        if room <= 0 or (room <= len(self.out) and not self._slots.hungry):
            return []
        taken = self.lanes.take(room, self._loop.time())
        for item in taken:
            self.out[item.offset] = item
        return taken

    async def _hand(self, items: Sequence[Item]) -> None:
        """Make jobs of claimed items, whose events may have to be read back first."""
        await self._fetch(items)
        jobs = []
        for item in items:
            record = self._records.get(item.offset)
            want = None if record is None else self._wants.find(record.event.topic)
            if self.leaving or self.dropped:
                self.forget(item)
            elif record is None or want is None:
                # Trimmed: then it is among the dead letters. Or a service that does not want it any more.
                self.finish(item, ACK)
            elif (unfit := _too_large(record)) is not None:
                self.finish(item, unfit)
            else:
                jobs.append(Job(self, item, record.event, want))
        self._slots.hand(jobs)

    async def _fetch(self, items: Sequence[Item]) -> None:
        missing = [item for item in items if item.offset not in self._records]
        while missing:
            try:
                self._records |= await self.lease.fetch(missing)
                return
            except Unavailable:
                await asyncio.sleep(limits.LOG_BACKOFF[1])

    async def _tell(self) -> None:
        """Remember in the log what changed, and what is out now: before a handler sees it."""
        self._soon = self._rung = False
        now, changes = self._loop.time(), self.lanes.changes()
        letters = [] if changes is None else await self._letters(changes)
        # Parked ones are suspects whatever was claimed, and a replay's number is no offset.
        claimed = max((offset for offset, item in self.out.items() if not item.parked), default=0)
        await self._slots.notices.tell(letters)
        await self.lease.settle(changes, claimed, letters)
        self._told_at = now
        for letter in letters:
            await self._slots.answers.failed(self.partition, letter)

    async def _letters(self, changes: Changes) -> list[DeadLetter]:
        letters = []
        await self._fetch([item for item, _ in changes.buried])
        for item, bury in changes.buried:
            record = self._records.pop(item.offset, None)
            if record is None:
                continue  # trimmed meanwhile: that made a letter of it
            event = record.event
            letters.append(
                DeadLetter(
                    bury.reason,
                    bury.error,
                    event.topic,
                    event.data[: limits.PAYLOAD_BYTES],
                    event.meta,
                    event.meta.producer,
                    time.time_ns() // 1_000_000,
                    group=self.lease.group,
                    attempts=item.attempts,
                    worker=self._worker,
                    traceback=self._tracebacks.pop(item.offset, ""),
                    id=event.id,
                    at=f"{record.epoch}-{record.offset}",
                    key="" if item.key == event.topic else item.key,
                )
            )
        return letters

    # --- suspects ---

    async def _quarantine(self) -> None:
        """Run one by one what a worker may have died of; each is counted before, and its end remembered after."""
        while True:
            await self._suspected.wait()
            async with self._slots.alone:
                item = None if self.leaving else self.lanes.take_suspect(self._loop.time())
                if item is None:
                    self._suspected.clear()
                    continue
                self.out[item.offset] = item
                await self._told()
                await self._alone(item)
                await self._told()

    async def _alone(self, item: Item) -> None:
        await self._fetch([item])
        record = self._records.get(item.offset)
        want = None if record is None else self._wants.find(record.event.topic)
        if record is None or want is None:
            self.finish(item, ACK)
            return
        if (unfit := _too_large(record)) is not None:
            self.finish(item, unfit)
            return
        while True:
            try:
                item.crashes = await self.lease.suspect(item.offset)
                break
            except Unavailable:
                await asyncio.sleep(limits.LOG_BACKOFF[1])
        # The count is of this try too: only what died before speaks against it.
        verdict = crashed(item.crashes - 1)
        if verdict is not None:
            self.finish(item, verdict)
        else:
            await self._slots.run_alone(Job(self, item, record.event, want))

    async def _told(self) -> None:
        told: asyncio.Future[None] = self._loop.create_future()
        self._asked.append(told)
        self._wake.set()
        await told


def _too_large(record: Record) -> Bury | None:
    """No door of ours takes so much: another program wrote it into the log. Its letter has the beginning of it."""
    size = len(record.event.data)
    if size <= limits.PAYLOAD_BYTES:
        return None
    return Bury(TooLarge.code, f"the payload has {size} bytes, and no door takes more than {limits.PAYLOAD_BYTES}")
