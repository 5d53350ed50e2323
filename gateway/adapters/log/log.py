"""The log: appended to by partition, followed by tails, read back by history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

from gateway import limits
from gateway.adapters.log import dead as letters
from gateway.adapters.log import epochs, promises
from gateway.adapters.log.bridge_lease import BridgeLease, fence, fence_key
from gateway.adapters.log.control import Control
from gateway.adapters.log.dead import DeadLetter
from gateway.adapters.log.edges import Edges
from gateway.adapters.log.entry import checked
from gateway.adapters.log.group import Groups
from gateway.adapters.log.history import History, Page, Walk
from gateway.adapters.log.keys import AppLog, Counters, part
from gateway.adapters.log.link import Link, address
from gateway.adapters.log.presence import Presence
from gateway.adapters.log.promises import Health
from gateway.adapters.log.replies import Replies
from gateway.adapters.log.resp import Wire
from gateway.adapters.log.surveys import Surveys
from gateway.adapters.log.tail import Tail
from gateway.adapters.log.tickets import Tickets
from gateway.adapters.log.trim import Trimmer
from gateway.adapters.log.writer import Writer
from gateway.core.event import Appended, Draft, Event, Partition, Position, Record
from gateway.core.resume import Epochs
from gateway.errors import GatewayError, Misconfigured

_logger = logging.getLogger(__name__)


class Log:
    """The partitions of every application, on one Redis ≥ 7.0 or Valkey. `open` it, keep `run` running, `close` it.

    Appends are answered only while `run` runs. Reads raise `Unavailable` while the server is away and come back by
    themselves.
    """

    def __init__(self, url: str, apps: Sequence[AppLog], gateway: str, partitions: int) -> None:
        """Use `open`: this one neither connects nor checks."""
        self.counters = Counters()
        self._to = address(url)
        self._gateway = gateway
        self._apps: dict[Partition, AppLog] = {name: app for app in apps for name in app.partitions(partitions)}
        self._reads = Link(self._to, self._greet_reads, self.counters)
        # One connection per application: WAIT holds one up, and only `replica` asks for it.
        self._writes = {app.app: self._write_link(app, partitions) for app in apps}
        self._writers = {name: self._new_writer(name, app) for name, app in self._apps.items()}
        #: Who runs the writers; None before `run`.
        self._running: asyncio.TaskGroup | None = None
        self._history = History(self._reads, self.counters)
        #: For megabytes: they come side by side, and nothing small waits behind them.
        self._bulk: dict[Partition, Link] = {}
        self._trimmer = Trimmer(self.counters)
        #: Services' cursors, leases and replays.
        self.groups = Groups(
            lambda partition: self._writes[self._app(partition).app], self._reads, gateway, self.counters
        )
        #: What services answered to requests.
        self.replies = Replies(
            lambda partition: self._writes[self._app(partition).app],
            self._reads,
            lambda: Link(self._to, counters=self.counters),
            gateway,
            lambda partition: self._app(partition).retention,
        )
        #: The edge processes that live.
        self.edges = Edges(self._reads, gateway)
        #: Who watches which topic, where that is declared.
        self.presence = Presence(lambda partition: self._writes[self._app(partition).app])
        #: What every edge must hear, revocations among it.
        self.control = Control(self._reads, lambda: Link(self._to, counters=self.counters), gateway)
        self.tickets = Tickets(self._reads, gateway)
        #: What the edges answer when one of them asks all.
        self.surveys = Surveys(self._reads, gateway)
        self._tails: list[Tail] = []

    @classmethod
    async def open(
        cls,
        url: str,
        apps: Sequence[AppLog],
        *,
        gateway: str = "gateway",
        partitions: int = limits.PARTITIONS,
        keys: Mapping[str, str] | None = None,
    ) -> Log:
        """Connect, check what is promised, and open each partition's epoch.

        ``keys`` maps topic filters to key templates; they, ``partitions``, the hash and the format are stored with
        the log. Raises `Misconfigured` where they differ or the server gives less than ``apps`` declare, and
        `Unavailable` where it cannot be reached (call again).
        """
        log = cls(url, apps, gateway, partitions)
        try:
            wire = await log._reads.wire()
            await promises.check_replicas(wire, apps)
            await promises.check_format(wire, gateway, partitions, keys or {})
            for link in log._writes.values():
                await link.wire()
        except BaseException:
            await log.close()
            raise
        return log

    async def adopt(self, apps: Sequence[AppLog], partitions: int, keys: Mapping[str, str]) -> None:
        """Compare ``keys``, check and open what is new of ``apps``, all as `open` does; raises what it does.

        Applications that it has are not looked at, and none is ever let go.
        """
        new = [app for app in apps if app.app not in self._writes]
        links = {app.app: self._write_link(app, partitions) for app in new}
        try:
            wire = await self._reads.wire()
            await promises.check_replicas(wire, new)
            for link in links.values():
                await link.wire()
            await promises.check_format(wire, self._gateway, partitions, keys)  # the last: it stores what is new
        except BaseException:
            for link in links.values():
                await link.close()
            raise
        # Other objects, not more in the same: somebody may be walking through those.
        self._writes = {**self._writes, **links}
        added = {name: app for app in new for name in app.partitions(partitions)}
        self._apps = {**self._apps, **added}
        self._writers = {**self._writers, **{name: self._new_writer(name, app) for name, app in added.items()}}
        if self._running is not None:
            for name in added:
                self._running.create_task(self._writers[name].run(), name=f"writer of {name}")

    async def run(self) -> None:
        """Write, keep the epochs, trim: until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._running = group
            for name, writer in self._writers.items():
                group.create_task(writer.run(), name=f"writer of {name}")
            group.create_task(self._keep_epochs(), name="epochs")
            group.create_task(self._keep_trimmed(), name="trim")

    async def close(self) -> None:
        for tail in self._tails:
            await tail.close()
        await self.replies.close()
        await self.control.close()
        for link in (self._reads, *self._bulk.values(), *self._writes.values()):
            await link.close()

    def partitions(self) -> tuple[Partition, ...]:
        return tuple(self._apps)

    @property
    def state(self) -> Literal["up", "down"]:
        return "up" if all(link.up.is_set() for link in self._links) else "down"

    @property
    def down_since(self) -> float | None:
        """The loop's time since when appends are impossible; None while up."""
        return min((link.down_since for link in self._links if link.down_since is not None), default=None)

    def unready(self) -> list[str]:
        """Why nothing can be appended now, for /readyz; nothing when all is well."""
        return sorted({f"log: {link.why}" for link in self._links if not link.up.is_set()})

    def durability(self, app: str) -> str:
        """What an acknowledgement of ``app`` means: ``fast``, ``disk`` or ``replica``."""
        return next((one.durability for one in self._apps.values() if one.app == app), "fast")

    async def wait_up(self) -> None:
        for link in self._links:
            await link.up.wait()

    async def append(
        self, partition: Partition, drafts: Sequence[Draft], *, patient: bool = False
    ) -> list[Appended | GatewayError]:
        """Store ``drafts`` in order, after everything appended to the partition before; one answer each.

        `Appended` means: as durable as the application's log promises. Never raises for a refusal: `KeyReused`,
        `LimitReached`, `Busy`, `StorageFull` and `Unavailable` are answers. After `Unavailable` the event may or may
        not be stored: send it again with the same id. ``patient`` callers only hear `Busy` and what is wrong with a
        draft of their own; cancelled, they take what has not left with them.
        """
        return await self._writer(partition).append(drafts, patient=patient)

    async def publish_live(self, partition: Partition, event: Event) -> None:
        """Give ``event`` to the tails of the moment; it is not kept. Raises `Unavailable`, `StorageFull`."""
        topic, id = event.topic.encode(), event.id.encode()
        fields = ("topic", topic, "id", id, "data", event.data, "prev", 0)
        meta = checked(event.meta, topic, id, event.data)
        link, key = self._writes[self._app(partition).app], part(partition, "live")
        await link.ask("XADD", key, "MAXLEN", "~", limits.LIVE_KEPT, "*", *fields, "meta", meta)

    def tail(self, partition: Partition) -> Tail:
        """A new reader of ``partition``; `Tail.close` it, or `close` closes it."""
        self._app(partition)
        self._tails = [tail for tail in self._tails if not tail.closed]
        tail = Tail(partition, Link(self._to, counters=self.counters), self.counters)
        self._tails.append(tail)
        return tail

    async def walk(self, partition: Partition, key: str, after: Position, limit: int = limits.WALK_EVENTS) -> Walk:
        """The events of ``key`` after a position, oldest first, by its chain; one call of the server.

        At most ``limit`` and `limits.WALK_EVENTS` events, `limits.WALK_BYTES` bytes: then the newest, and not
        ``complete``. ``after`` of epoch 0 claims nothing: a history from its offset on.
        """
        return await self._history.walk(partition, key, after, limit)

    async def read(self, partition: Partition, after: Position, count: int) -> Page:
        """A page of at most ``count`` entries after a position; an empty one means that nothing came after it.

        Whether the log still agrees with ``after`` is for `Epochs.continuous` to say: ask it first.
        """
        link = self._reads
        if count > limits.LOG_PAGE:
            link = self._bulk.setdefault(partition, Link(self._to, counters=self.counters))
        return await self._history.read(partition, after, count, link)

    async def read_back(self, partition: Partition, before: Position, count: int) -> Page:
        """As `read`, but what came before a position, newest first."""
        return await self._history.read_back(partition, before, count)

    async def top(self, partition: Partition) -> Position:
        """The last position ever given in the partition."""
        return await self._history.top(partition)

    async def floor(self, partition: Partition) -> int:
        """The offset before the partition's oldest kept entry; a reader below it has missed what went."""
        return await self._history.floor(partition)

    async def heads(self, partition: Partition, keys: Sequence[str]) -> list[int | None]:
        """The offset of each key's newest event; None where it has none that is kept."""
        return await self._history.heads(partition, keys)

    async def epochs(self, partition: Partition) -> Epochs:
        return await self._history.epochs(partition)

    async def last(self, partition: Partition, topics: Sequence[str] | None, limit: int) -> list[Record]:
        """The last values of ``topics``, or of every topic of the partition; at most ``limit``, in no order."""
        return await self._history.last(partition, topics, limit)

    async def recent_deliveries(self, partition: Partition, count: int) -> list[Record]:
        """The newest ``count`` entries' events, oldest first."""
        return await self._history.newest(partition, count)

    async def bury(self, partition: Partition, letter: DeadLetter) -> None:
        """Keep ``letter`` in the partition's dead letters, or, by partition ``<gateway>.0``, in the gateway's own."""
        await self.bury_many(partition, [letter])

    async def bury_many(self, partition: Partition, letters_: Sequence[DeadLetter]) -> None:
        """As `bury`, in order; raises what refused the first of them. The oldest beyond the bound go."""
        ours = partition == f"{self._gateway}.0"
        link = self._reads if ours else self._writes[self._app(partition).app]
        await letters.bury(link, partition, letters_, limits.DEAD_UNDECLARED_KEPT if ours else limits.DEAD_KEPT)
        self.counters.buried += len(letters_)

    async def dead(self, partition: Partition, after: str = "-", count: int = 100) -> list[tuple[str, DeadLetter]]:
        """A page of dead letters after the id ``after``, oldest first."""
        return await letters.dead(self._reads, partition, after, count)

    async def dead_letter(self, partition: Partition, id: str) -> DeadLetter | None:
        return await letters.one(self._reads, partition, id)

    async def drop_dead(self, partition: Partition, ids: Sequence[str]) -> int:
        """Forget dead letters for good; returns how many were there."""
        return await letters.drop(self._reads, partition, ids)

    def bridge_lease(self, name: str, holder: str, ttl: float) -> BridgeLease:
        """A claim of the bridge ``name``, which is the same word for all that may serve one broker; see there."""
        return BridgeLease(self._reads, self._gateway, name, holder, ttl)

    async def fence(self, partitions: Sequence[Partition], name: str, term: int) -> None:
        """Append to ``partitions`` as the bridge ``name`` of ``term``: nobody of an earlier term can any more.

        Raises `Fenced` where a later term was here, and `Unavailable`. Of the appends after a later term's `fence`,
        each is answered `Fenced`.
        """
        for partition in partitions:
            await fence(self._writes[self._app(partition).app], partition, name, term)
            self._writer(partition).fence(fence_key(partition, name), str(term))

    async def trim(self) -> int:
        """One pass over all partitions whose trimming no other process holds; returns the entries that went."""
        total = 0
        for partition, app in self._apps.items():
            total += await self._trimmer.trim(self._writes[app.app], app, partition)
        return total

    async def health(self) -> Health:
        """Never raises: a server that is away is ``up=False`` with the reason."""
        try:
            return promises.health(await self._reads.ask("INFO"))
        except GatewayError as error:
            return Health(up=False, why=str(error))

    @property
    def _links(self) -> tuple[Link, ...]:
        return tuple(self._writes.values())

    def _app(self, partition: Partition) -> AppLog:
        if partition not in self._apps:
            raise Misconfigured(f"no application has a partition {partition!r}", "declare the application")
        return self._apps[partition]

    def _writer(self, partition: Partition) -> Writer:
        self._app(partition)
        return self._writers[partition]

    def _new_writer(self, name: Partition, app: AppLog) -> Writer:
        return Writer(name, self._writes[app.app], self.counters, replicas=int(app.durability == "replica"))

    def _write_link(self, app: AppLog, partitions: int) -> Link:
        async def greet(wire: Wire) -> None:
            await promises.check_server(wire, [app])
            await epochs.keep(wire, app.partitions(partitions), self.counters)

        return Link(self._to, greet, self.counters)

    async def _greet_reads(self, wire: Wire) -> None:
        await promises.check_server(wire, [])

    async def _keep_epochs(self) -> None:
        while True:
            for link in self._links:
                try:
                    wire = await link.wire()
                except GatewayError:
                    continue  # the link says why, once; here it is tried again
                try:
                    mine = [name for name, app in self._apps.items() if self._writes[app.app] is link]
                    await epochs.keep(wire, mine, self.counters)
                except GatewayError as error:
                    _logger.warning("epochs cannot be kept: %s", error)
            await asyncio.sleep(limits.EPOCH_EVERY if self.state == "up" else limits.LOG_BACKOFF[0])

    async def _keep_trimmed(self) -> None:
        while True:
            try:
                await self.trim()
            except GatewayError as error:
                _logger.warning("trimming waits: %s", error)
            await asyncio.sleep(limits.MARK_EVERY)
