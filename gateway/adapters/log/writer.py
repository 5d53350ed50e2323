"""The one writer of a partition in this process: drafts wait in order, one unresolved batch is under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias, cast

import hiredis

from gateway import limits
from gateway.adapters.log import epochs
from gateway.adapters.log.entry import packed, position, weight
from gateway.adapters.log.keys import Counters, log_key, parts
from gateway.adapters.log.link import APPEND, Link, backoff, good, missing_script
from gateway.adapters.log.resp import Lost, Reply, Wire, misplaced, pack, refusal
from gateway.core.event import Appended, Draft, Partition, Position
from gateway.errors import Busy, Fenced, GatewayError, KeyReused, LimitReached, Unavailable

Answer: TypeAlias = Appended | GatewayError


class Call:
    """The drafts of one caller, and their answers as they come."""

    __slots__ = ("answers", "bytes", "drafts", "future", "patient", "taken")

    def __init__(self, drafts: Sequence[Draft], patient: bool, future: asyncio.Future[list[Answer]]) -> None:
        self.drafts = drafts
        self.patient = patient
        self.future = future
        self.answers: list[Answer] = []
        self.taken = 0
        self.bytes = sum(map(weight, drafts))

    @property
    def waiting(self) -> bool:
        return not self.future.done()

    def answer(self, answers: Sequence[Answer]) -> None:
        self.answers += answers
        if len(self.answers) == len(self.drafts) and self.waiting:
            self.future.set_result(self.answers)

    def refuse(self, error: GatewayError) -> None:
        """Answer all that is not answered yet."""
        self.answer([error] * (len(self.drafts) - len(self.answers)))


#: What leaves together: slices of calls, in order.
Batch: TypeAlias = list[tuple[Call, Sequence[Draft]]]


class Writer:
    """Appends to one partition, in the order of the calls.

    A caller who is ``patient`` stays in the queue until the server took his drafts or he is cancelled; others are
    answered with the error of the moment. What was refused or is unknown (a lost reply) is sent again whole, before
    anything newer: an event may be stored twice with one id, never out of order.
    """

    def __init__(self, partition: Partition, link: Link, counters: Counters, replicas: int = 0) -> None:
        self._partition = partition
        self._link = link
        self._counters = counters
        self._replicas = replicas
        self._queue: deque[Call] = deque()
        self._queued_events = 0
        self._queued_bytes = 0
        self._work = asyncio.Event()
        self._batch: Batch = []
        #: Why the patient wait at the moment: others need not queue behind them to hear it.
        self._blocked: GatewayError | None = None
        self._head, self._words = b"", 0
        self.fence("", "")

    def fence(self, key: str, term: str) -> None:
        """From now on append only while ``key`` holds ``term``; else every answer is `Fenced`. Empty: no fence."""
        keys = (*parts(self._partition, "epochs", "heads", "last", "idem"), *((key,) if key else ()))
        words = ("EVALSHA", APPEND.sha, len(keys), *keys, limits.RETAINED_TOPICS, term)
        self._words = len(words)
        self._head = pack(*words).partition(b"\r\n")[2]

    async def append(self, drafts: Sequence[Draft], *, patient: bool) -> list[Answer]:
        """One answer per draft, in order: `Appended`, or the error that refused it."""
        if not drafts:
            return []
        if self._blocked is not None and not patient:
            return [self._blocked] * len(drafts)
        call = Call(drafts, patient, asyncio.get_running_loop().create_future())
        full = (
            self._queued_events + len(drafts) > limits.APPEND_QUEUE
            or self._queued_bytes + call.bytes > limits.APPEND_QUEUE_BYTES
        )
        if full and self._queue:
            busy = Busy(f"{self._queued_events} events wait for {self._partition}", "send less", retry_after=0.5)
            return [busy] * len(drafts)
        self._queue.append(call)
        self._queued_events += len(drafts)
        self._queued_bytes += call.bytes
        self._work.set()
        return await call.future

    async def run(self) -> None:
        """Send batches until cancelled; then whoever still waits hears `Unavailable`."""
        try:
            while True:
                await self._work.wait()
                self._batch = self._take()
                if self._batch:
                    await self._settle()
                else:
                    self._work.clear()
        finally:
            closing = Unavailable("the log is closing", "send it again with the same id", retry_after=1.0)
            for call in [call for call, _ in self._batch] + list(self._queue):
                call.refuse(closing)
            self._queue.clear()

    def _take(self) -> Batch:
        """The next batch: at most `limits.APPEND_BATCH` events and, beyond the first, `limits.APPEND_BYTES`."""
        batch: Batch = []
        room, size = limits.APPEND_BATCH, 0
        while self._queue and room and size < limits.APPEND_BYTES:
            call = self._queue[0]
            if call.waiting:
                drafts = call.drafts[call.taken : call.taken + room]
                if size + call.bytes > limits.APPEND_BYTES:
                    drafts = _within(drafts, limits.APPEND_BYTES - size)
                batch.append((call, drafts))
                call.taken += len(drafts)
                room -= len(drafts)
                size += call.bytes if len(drafts) == len(call.drafts) else sum(map(weight, drafts))
            if call.taken == len(call.drafts) or not call.waiting:
                self._forget(call)
        return batch

    def _forget(self, call: Call) -> None:
        self._queue.remove(call)
        self._queued_events -= len(call.drafts)
        self._queued_bytes -= call.bytes

    async def _settle(self) -> None:
        """Send the batch until each of its callers has an answer."""
        tries = 0
        while self._batch:
            try:
                answers = await self._send(self._batch)
            except GatewayError as error:
                self._refuse_impatient(error)
                if self._drop_answered():
                    self._blocked = error
                    self._counters.retries += 1
                    await asyncio.sleep(backoff(tries))
                    tries += 1
                    self._drop_answered()  # who was cancelled meanwhile does not want it any more
            else:
                self._count(answers)
                start = 0
                for call, drafts in self._batch:
                    call.answer(answers[start : start + len(drafts)])
                    start += len(drafts)
                self._batch = []
        self._blocked = None

    def _drop_answered(self) -> Batch:
        self._batch = [(call, drafts) for call, drafts in self._batch if call.waiting]
        return self._batch

    def _refuse_impatient(self, error: GatewayError) -> None:
        """Tell those who do not wait, in the batch and behind it."""
        for call, _ in self._batch:
            if not call.patient:
                call.refuse(error)
        for call in [call for call in self._queue if not call.patient]:
            call.refuse(error)
            self._forget(call)

    def _count(self, answers: Sequence[Answer]) -> None:
        self._counters.batches += 1
        for answer in answers:
            if isinstance(answer, Appended):
                if answer.duplicate:
                    self._counters.duplicates += 1
                else:
                    self._counters.appended += 1

    async def _send(self, batch: Batch) -> list[Answer]:
        """One call of ``append.lua``; raises the typed error that refused it whole, or `Lost`."""
        drafts = [draft for _, slice_ in batch for draft in slice_]
        command = b"*%d\r\n%b%b" % (self._words + 8 * len(drafts), self._head, b"".join(map(packed, drafts)))
        wire = await self._link.wire()
        reply = await self._ask(wire, command)
        if misplaced(reply):
            wire = await self._link.wire()
            reply = await self._ask(wire, command)
        if missing_script(reply):
            await wire.call(APPEND.load)
            reply = await self._ask(wire, command)
        if reply == b"STALE":
            # Nothing was stored. Another life of the server: its epoch first, then the same batch again.
            await epochs.keep(wire, [self._partition], self._counters)
            reply = await self._ask(wire, command)
        if reply == b"FENCED":
            return [Fenced(f"another bridge appends to {self._partition} now", "take the lease again")] * len(drafts)
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply)
        if reply == b"STALE" or reply is None:
            raise Unavailable(f"the log {log_key(self._partition)} changes under us", retry_after=0.5)
        if self._replicas:
            await self._replicated(wire)
        return _answers(cast("list[Reply]", reply), drafts)

    async def _ask(self, wire: Wire, command: bytes) -> Reply:
        return (await wire.call(command))[0]

    async def _replicated(self, wire: Wire) -> None:
        """Wait until enough replicas have it. Asked again on the same connection, never by appending again:

        WAIT speaks of what this very connection wrote, and a batch per try would fill the log with doubles.
        """
        ask = pack("WAIT", self._replicas, int(limits.REPLICA_WITHIN * 1000))
        while True:
            reached = good((await wire.call(ask, within=limits.LOG_REPLY_WITHIN + limits.REPLICA_WITHIN))[0])
            if isinstance(reached, int) and reached >= self._replicas:
                return
            late = Unavailable(
                "stored, but no replica confirmed it yet", "send it again with the same id", retry_after=1.0
            )
            self._refuse_impatient(late)
            if not any(call.waiting for call, _ in self._batch):
                raise late
            self._blocked = late


def _within(drafts: Sequence[Draft], size: int) -> Sequence[Draft]:
    """As many of ``drafts`` from the first as fit into ``size``, but one at least."""
    for index, draft in enumerate(drafts):
        size -= weight(draft)
        if size < 0 and index:
            return drafts[:index]
    return drafts


def _answers(reply: Sequence[Reply], drafts: Sequence[Draft]) -> list[Answer]:
    epoch = int(cast("bytes", reply[0]))
    found: list[Answer] = []
    for draft, answer in zip(drafts, reply[1:], strict=True):
        if isinstance(answer, int):
            found.append(Appended(Position(epoch, answer), draft.event.id))
            continue
        match answer:
            case [b"duplicate", bytes(at), bytes(id)]:
                found.append(Appended(position(at), id.decode(), duplicate=True))
            case [b"reused"]:
                found.append(KeyReused("this idempotency key came before with another body", "choose another key"))
            case [b"full"]:
                found.append(
                    LimitReached(f"{limits.RETAINED_TOPICS} topics of the partition have a last value", "clear some")
                )
            case _:
                raise Lost(f"append.lua answered {answer!r}")
    return found
