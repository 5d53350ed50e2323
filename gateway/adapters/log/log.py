"""The log: appended to by partition, followed by tails, read back by history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from gateway.adapters.log.link import Link
from gateway.adapters.log.links import Links, by_link
from gateway.adapters.log.presence import Presence
from gateway.adapters.log.promises import Health
from gateway.adapters.log.replies import Replies
from gateway.adapters.log.servers import Servers
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
    """The partitions of every application, on one Redis ≥ 7.0 or Valkey, or a cluster of them.

    `open` it, keep `run` running, `close` it.

    Appends are answered only while `run` runs. Reads raise `Unavailable` while the server is away and come back by
    themselves.
    """

    def __init__(self, servers: Servers, apps: Sequence[AppLog], gateway: str, partitions: int) -> None:
        """Use `open`: this one neither connects nor checks."""
        self.counters = Counters()
        self._gateway = gateway
        self._apps: dict[Partition, AppLog] = {name: app for app in apps for name in app.partitions(partitions)}
        links = self._links = Links(servers, gateway, self.counters)
        links.writes = {name: link for app in apps for name, link in links.to_write(app, partitions).items()}
        self._writers = {name: self._new_writer(name, app) for name, app in self._apps.items()}
        self.counters.away = links.away
        #: Who runs the writers; None before `run`.
        self._running: asyncio.TaskGroup | None = None
        self._history = History(links.reading, self.counters)
        self._trimmer = Trimmer(self.counters)
        #: Services' cursors, leases and replays.
        self.groups = Groups(self._writing, links.reading, links.own, gateway, self.counters)
        #: What services answered to requests.
        self.replies = Replies(
            self._writing,
            links.reading,
            # One server syncs its file at each turn: what goes to it in one write, it syncs once.
            None if not links.clustered else links.own,
            lambda: links.another(gateway),
            gateway,
            lambda partition: self._app(partition).retention,
        )
        #: The edge processes that live.
        self.edges = Edges(links.own, gateway)
        #: Who watches which topic, where that is declared.
        self.presence = Presence(self._writing)
        #: What every edge must hear, revocations among it.
        self.control = Control(links.own, lambda: links.another(gateway), gateway)
        self.tickets = Tickets(links.own, gateway)
        #: What the edges answer when one of them asks all.
        self.surveys = Surveys(links.own, gateway)
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

        In a cluster a node that is away keeps nobody from the others: its partitions open their epochs with `run`.

        ``keys`` maps topic filters to key templates; they, ``partitions``, the hash and the format are stored with
        the log. Raises `Misconfigured` where they differ or the server gives less than ``apps`` declare, and
        `Unavailable` where it cannot be reached (call again).
        """
        log = cls(await Servers.find(url), apps, gateway, partitions)
        try:
            wire = await log._links.own.wire()
            await log._links.check_replicas(apps)
            await promises.check_format(wire, gateway, partitions, keys or {})
            await log._links.connect(log._links.writing)
        except BaseException:
            await log.close()
            raise
        return log

    async def adopt(self, apps: Sequence[AppLog], partitions: int, keys: Mapping[str, str]) -> None:
        """Compare ``keys``, check and open what is new of ``apps``, all as `open` does; raises what it does.

        Applications that it has are not looked at, and none is ever let go.
        """
        known = {app.app for app in self._apps.values()}
        new = [app for app in apps if app.app not in known]
        links = {name: link for app in new for name, link in self._links.to_write(app, partitions).items()}
        try:
            wire = await self._links.own.wire()
            await self._links.check_replicas(new)
            await self._links.connect(by_link(links))
            await promises.check_format(wire, self._gateway, partitions, keys)  # the last: it stores what is new
        except BaseException:
            for link in by_link(links):
                await link.close()
            raise
        # Other objects, not more in the same: somebody may be walking through those.
        self._links.writes = {**self._links.writes, **links}
        added = {name: app for app in new for name in app.partitions(partitions)}
        self._apps = {**self._apps, **added}
        self._writers = {**self._writers, **{name: self._new_writer(name, app) for name, app in added.items()}}
        if self._running is not None:
            self._keep(self._running, links)

    async def run(self) -> None:
        """Write, keep the epochs, trim: until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._running = group
            self._keep(group, self._links.writes)
            group.create_task(self._keep_trimmed(), name="trim")

    async def close(self) -> None:
        for tail in self._tails:
            await tail.close()
        await self.replies.close()
        await self.control.close()
        await self._links.close()

    def partitions(self) -> tuple[Partition, ...]:
        return tuple(self._apps)

    @property
    def state(self) -> Literal["up", "down"]:
        return "up" if all(link.up.is_set() for link in self._links.writing) else "down"

    @property
    def down_since(self) -> float | None:
        """The loop's time since when appends are impossible; None while up."""
        return self._links.down_since()

    def unready(self) -> list[str]:
        """Why nothing can be appended now, for /readyz; nothing when all is well.

        In a cluster also nothing while some partitions are `away`: the others have no one else to serve them.
        """
        return self._links.unready()

    def away(self) -> int:
        """How many partitions nothing can be appended to now."""
        return self._links.away()

    def reaches(self, partition: Partition) -> bool:
        """Whether its server answered when it was last asked."""
        return self._links.writes[partition].up.is_set()

    def durability(self, app: str) -> str:
        """What an acknowledgement of ``app`` means: ``fast``, ``disk`` or ``replica``."""
        return next((one.durability for one in self._apps.values() if one.app == app), "fast")

    async def wait_up(self) -> None:
        for link in self._links.writing:
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
        key = part(partition, "live")
        await self._writing(partition).ask("XADD", key, "MAXLEN", "~", limits.LIVE_KEPT, "*", *fields, "meta", meta)

    def tail(self, partition: Partition) -> Tail:
        """A new reader of ``partition``; `Tail.close` it, or `close` closes it."""
        self._app(partition)
        self._tails = [tail for tail in self._tails if not tail.closed]
        tail = Tail(partition, self._links.another(partition), self.counters)
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
        link = self._links.bulk(partition) if count > limits.LOG_PAGE else self._links.reading(partition)
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
        link = self._links.reading(partition) if ours else self._writing(partition)
        await letters.bury(link, partition, letters_, limits.DEAD_UNDECLARED_KEPT if ours else limits.DEAD_KEPT)
        self.counters.buried += len(letters_)

    async def dead(self, partition: Partition, after: str = "-", count: int = 100) -> list[tuple[str, DeadLetter]]:
        """A page of dead letters after the id ``after``, oldest first."""
        return await letters.dead(self._links.reading(partition), partition, after, count)

    async def dead_letter(self, partition: Partition, id: str) -> DeadLetter | None:
        return await letters.one(self._links.reading(partition), partition, id)

    async def drop_dead(self, partition: Partition, ids: Sequence[str]) -> int:
        """Forget dead letters for good; returns how many were there."""
        return await letters.drop(self._links.reading(partition), partition, ids)

    def bridge_lease(self, name: str, holder: str, ttl: float) -> BridgeLease:
        """A claim of the bridge ``name``, which is the same word for all that may serve one broker; see there."""
        return BridgeLease(self._links.own, self._gateway, name, holder, ttl)

    async def fence(self, partitions: Sequence[Partition], name: str, term: int) -> None:
        """Append to ``partitions`` as the bridge ``name`` of ``term``: nobody of an earlier term can any more.

        Raises `Fenced` where a later term was here, and `Unavailable`. Of the appends after a later term's `fence`,
        each is answered `Fenced`.
        """
        for partition in partitions:
            await fence(self._writing(partition), partition, name, term)
            self._writer(partition).fence(fence_key(partition, name), str(term))

    async def trim(self) -> int:
        """One pass over all partitions whose trimming no other process holds; returns the entries that went.

        Raises the first error at the end: what belongs to another node of a cluster is trimmed.
        """
        total, errors = 0, list[GatewayError]()
        for partition, app in self._apps.items():
            try:
                total += await self._trimmer.trim(self._links.writes[partition], app, partition)
            except GatewayError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return total

    async def health(self) -> Health:
        """Never raises: a server that is away is ``up=False`` with the reason."""
        try:
            return promises.health(await self._links.own.ask("INFO"))
        except GatewayError as error:
            return Health(up=False, why=str(error))

    def _writing(self, partition: Partition) -> Link:
        self._app(partition)
        return self._links.writes[partition]

    def _app(self, partition: Partition) -> AppLog:
        if partition not in self._apps:
            raise Misconfigured(f"no application has a partition {partition!r}", "declare the application")
        return self._apps[partition]

    def _writer(self, partition: Partition) -> Writer:
        self._app(partition)
        return self._writers[partition]

    def _new_writer(self, name: Partition, app: AppLog) -> Writer:
        return Writer(name, self._links.writes[name], self.counters, replicas=int(app.durability == "replica"))

    async def _keep_epochs(self, link: Link, names: Sequence[Partition]) -> None:
        """Of one connection: a node that does not answer takes its time, and the others have theirs."""
        while True:
            with suppress(GatewayError):  # the link says why, once; it is tried again
                wire = await link.wire()
                try:
                    await epochs.keep(wire, names, self.counters)
                except GatewayError as error:
                    _logger.warning("epochs cannot be kept: %s", error)
            await asyncio.sleep(limits.EPOCH_EVERY if link.up.is_set() else limits.LOG_BACKOFF[0])

    def _keep(self, group: asyncio.TaskGroup, writes: Mapping[Partition, Link]) -> None:
        """Write to the partitions of ``writes``, and keep their epochs."""
        for name in writes:
            group.create_task(self._writers[name].run(), name=f"writer of {name}")
        for link, names in by_link(writes).items():
            group.create_task(self._keep_epochs(link, names), name=f"epochs of {', '.join(names)}")

    async def _keep_trimmed(self) -> None:
        while True:
            try:
                await self.trim()
            except GatewayError as error:
                _logger.warning("trimming waits: %s", error)
            await asyncio.sleep(limits.MARK_EVERY)
