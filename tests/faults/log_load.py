"""Load on one partition while faults happen, and the story of it for the checker. Sabotaged writers live here too."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import msgspec

from gateway.adapters.log import AppLog, Batch, Log
from gateway.adapters.log.entry import position
from gateway.adapters.log.keys import log_key
from gateway.adapters.log.link import Script
from gateway.adapters.log.resp import Lost, Wire, pack
from gateway.adapters.log.writer import Answer, Writer
from gateway.adapters.log.writer import Batch as Written
from gateway.core.event import Appended, Draft, Event, Meta, Partition, Position
from gateway.core.resume import Epochs
from gateway.edge.feed import Feed
from gateway.errors import GatewayError
from tests.faults.log_checker import CONTROL, Story

P: Partition = "devices.0"


@asynccontextmanager
async def running(url: str, writer: type[Writer] = Writer, **promise: object) -> AsyncIterator[Log]:
    """A log of one partition, with ``writer`` in the place of its own."""
    app = msgspec.convert({"app": "devices", **promise}, AppLog)
    log = await Log.open(url, [app], partitions=1)
    log._writers[P] = writer(P, log._links.writes[P], log.counters, replicas=int(app.durability == "replica"))
    task = asyncio.create_task(log.run(), name="log")
    try:
        yield log
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await log.close()


class Load:
    """Calls of a few drafts each, many at once, in a known order; and one tail that watches."""

    def __init__(self, log: Log, *, patient: bool = True, name: str = "", size: int = 20) -> None:
        self.sent: list[str] = []
        self.acknowledged: dict[str, Position] = {}
        self.refused: list[GatewayError] = []
        self.seen: list[tuple[str, Position]] = []
        self.opened: list[Epochs] = []
        self.lost = 0
        self._log, self._patient, self._name, self._size = log, patient, name, size
        self._calls: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def watch(self) -> None:
        tail = self._log.tail(P)
        await tail.start(0)

        async def watching() -> None:
            async for batch in tail:
                self.seen += [(r.event.id, Position(r.epoch, r.offset)) for r in batch.records]
                self.lost += batch.lost
                if batch.opened is not None:
                    self.opened.append(batch.opened)

        self._tasks.append(asyncio.create_task(watching(), name="watching"))

    def pour(self) -> None:
        self._tasks.append(asyncio.create_task(self._pour(), name="pouring"))

    async def settle(self) -> None:
        """Send no more, and wait for all answers."""
        self._stop.set()
        while self._calls:
            await asyncio.wait(self._calls)

    async def end(self) -> None:
        for task in [*self._tasks, *self._calls]:
            task.cancel()
        await asyncio.wait([*self._tasks, *self._calls])

    async def _pour(self) -> None:
        while not self._stop.is_set():
            ids = [f"{self._name}{len(self.sent) + n}" for n in range(self._size)]
            self.sent += ids
            drafts = [Draft(Event(f"devices/{id[-1]}/x", id.encode(), id, Meta()), f"devices/{id[-1]}") for id in ids]
            call = asyncio.create_task(self._call(drafts))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.sleep(0.001 if len(self._calls) < 20 else 0.01)

    async def _call(self, drafts: Sequence[Draft]) -> None:
        for draft, answer in zip(drafts, await self._log.append(P, drafts, patient=self._patient), strict=True):
            if isinstance(answer, Appended):
                self.acknowledged[draft.event.id] = answer.position
            else:
                self.refused.append(answer)


async def story(log: Log, *loads: Load, lives: int = 1, doubles: bool = False) -> Story:
    """What is in the log now, as the checker wants it. Several loads: one story of all, in the order of the first."""
    entries = cast("list[tuple[bytes, list[bytes]]]", await log._links.reading(P).ask("XRANGE", log_key(P), "-", "+"))
    stored = [(CONTROL if fields[0] == b"ctl" else fields[3].decode(), position(id)) for id, fields in entries]
    return Story(
        sent=[id for load in loads for id in load.sent],
        acknowledged={id: at for load in loads for id, at in load.acknowledged.items()},
        stored=stored,
        seen=loads[0].seen,
        lives=lives,
        doubles=doubles,
    )


# --- broken on purpose: the suite must go red on each ---------------------------------------------------------------


class AcknowledgesEarly(Writer):
    """Says that it is stored before it is."""

    async def append(self, drafts: Sequence[Draft], *, patient: bool) -> list[Answer]:
        self._early = asyncio.create_task(super().append(drafts, patient=False), name="early")
        return [Appended(Position(0, 0), draft.event.id) for draft in drafts]


class IgnoresReplicas(Writer):
    """Asks for a replica's confirmation, and does not look at the number."""

    async def _replicated(self, wire: Wire) -> None:
        return


class NewestFirst(Writer):
    """What was refused comes after what is newer."""

    async def _send(self, batch: Written) -> list[Answer]:
        try:
            return await super()._send(batch)
        except GatewayError:
            newer = self._take()
            if newer:
                # The newer one goes now; the refused one stays in its place and is tried again.
                self._queue.extend(call for call, _ in batch if call not in self._queue)
                for call, drafts in batch:
                    call.taken -= len(drafts)
                    self._queued_events += len(call.drafts)
                    self._queued_bytes += call.bytes
                self._batch[:] = newer
            raise


class NewIdPerTry(Writer):
    """Gives an event a new id when it is sent again."""

    async def _send(self, batch: Written) -> list[Answer]:
        try:
            return await super()._send(batch)
        except Lost:
            for index, (call, drafts) in enumerate(batch):
                fresh = [
                    msgspec.structs.replace(d, event=msgspec.structs.replace(d.event, id=f"{d.event.id}-again"))
                    for d in drafts
                ]
                batch[index] = (call, fresh)
            raise


class TakesSilenceForYes(Writer):
    """Takes a lost reply for a yes."""

    async def _send(self, batch: Written) -> list[Answer]:
        try:
            return await super()._send(batch)
        except Lost:
            return [Appended(Position(0, 0), draft.event.id) for _, drafts in batch for draft in drafts]


class OpensUnasked(Script):
    """`epoch.lua` without its comparison."""

    def __init__(self) -> None:
        super().__init__("epoch")
        compares = b"if exists and known[1] == replid then"
        assert compares in self.text
        self.text = self.text.replace(compares, b"if false then")
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        self.load = pack("SCRIPT", "LOAD", self.text)


class KeepsOldEpochs(Feed):
    """Takes no note of an epoch that was opened."""

    async def _take(self, batch: Batch, position: Position) -> None:
        if batch.opened is not None:
            batch.opened = self.epochs
        await super()._take(batch, position)
