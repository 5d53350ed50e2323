"""The relay: what transactions left in the outbox goes into the log, in order, and is then forgotten."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event, Partition
from gateway.errors import Busy, GatewayError, Refused, Unavailable
from gateway.store import Row, Store

_logger = logging.getLogger("gateway.relay")


class Relay:
    """Empties one database's outbox while it leads; of the processes that share the database one does.

    Rows leave in order and a batch at a time: where the process dies between the append and the delete, or the log's
    answer is lost, the same rows leave again, with the same ids, before anything newer. Groups drop them by their
    inbox, and watchers by their id.
    """

    def __init__(self, store: Store, log: Log, declared: Declared, name: str, strays: Partition) -> None:
        """``strays``: where what belongs nowhere any more is buried."""
        self._store, self._log, self._declared = store, log, declared
        self._name, self._strays = name, strays
        self._wake = asyncio.Event()
        self._leads_until = 0.0
        self._purge_at = 0.0
        self._why, self._ending = "", False
        #: Events that it took into the log; events it could not, now among the dead letters.
        self.sent, self.buried = 0, 0

    @property
    def leads(self) -> bool:
        return asyncio.get_running_loop().time() < self._leads_until

    def unready(self) -> list[str]:
        """Why nothing leaves now; nothing when all is well."""
        return [f"outbox: {self._why}"] if self._why else []

    def wake(self) -> None:
        """Look at once: something was committed."""
        self._wake.set()

    def end(self) -> None:
        """Send what may leave now, then let another lead, and end `run`."""
        self._ending = True
        self._wake.set()

    async def run(self) -> None:
        """Relay until `end`, or until cancelled; what is on its way then leaves again."""
        while True:
            self._wake.clear()
            pause = limits.RELAY_EVERY
            try:
                if await self._lead():
                    rows, wait = await self._store.due(limits.RELAY_BATCH)
                    if rows:
                        await self._send(rows)
                        await self._store.sent(rows)
                        continue
                    pause = pause if wait is None else min(pause, max(0.0, wait))
                    await self._purge()
                self._why = ""
            except Unavailable as error:
                if not self._why:  # once, not per try
                    _logger.warning("the outbox waits: %s", error)
                self._why, pause = str(error), limits.AWAY_PAUSE
            if self._ending:
                break
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

        if self.leads:
            with suppress(Unavailable):  # then it expires
                await self._store.lead(self._name, 0.0)

    async def _lead(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._leads_until - now < limits.RELAY_LEASE / 2:
            leads = await self._store.lead(self._name, limits.RELAY_LEASE)
            self._leads_until = now + limits.RELAY_LEASE * 0.9 if leads else 0.0
            return leads
        return True

    async def _send(self, rows: Sequence[Row]) -> None:
        by_partition: defaultdict[Partition, list[Draft]] = defaultdict(list)
        passing: list[tuple[Partition, Event]] = []
        for row in rows:
            event = row.event
            if row.delayed:  # its age is counted from when it leaves
                event = msgspec.structs.replace(
                    event, meta=msgspec.structs.replace(event.meta, ts=time.time_ns() // 1_000_000)
                )
            try:
                found = self._declared.find(event.topic)
            except Refused as error:
                await self._bury(self._strays, event, error)
                continue
            if found.topic.ephemeral:
                passing.append((found.partition, event))
            else:
                draft = Draft(event, found.key, retain=found.topic.retain)
                by_partition[found.partition].append(draft)
        await asyncio.gather(*(self._append(partition, drafts) for partition, drafts in by_partition.items()))
        for partition, event in passing:
            await self._log.publish_live(partition, event)

    async def _append(self, partition: Partition, drafts: Sequence[Draft]) -> None:
        answers = await self._log.append(partition, drafts, patient=True)
        while any(isinstance(answer, Busy) for answer in answers):  # the queue is full: none of them was taken
            await asyncio.sleep(limits.RELAY_EVERY)
            answers = await self._log.append(partition, drafts, patient=True)
        for draft, answer in zip(drafts, answers, strict=True):
            if isinstance(answer, Unavailable):
                raise answer
            if isinstance(answer, GatewayError):
                await self._bury(partition, draft.event, answer)
            else:
                self.sent += 1

    async def _bury(self, partition: Partition, event: Event, error: GatewayError) -> None:
        now = time.time_ns() // 1_000_000
        letter = DeadLetter(
            error.code, str(error), event.topic, event.data, event.meta, event.meta.producer, now, id=event.id
        )
        await self._log.bury(partition, letter)
        self.buried += 1

    async def _purge(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._purge_at and not await self._store.purge(limits.INBOX_KEPT):
            self._purge_at = now + limits.PURGE_EVERY
