"""The connections of one log: its own, those that write, and those that read; in a cluster of each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from gateway.adapters.log import epochs, promises
from gateway.adapters.log.keys import AppLog, Counters, part
from gateway.adapters.log.link import Link, good
from gateway.adapters.log.resp import Wire, pack
from gateway.adapters.log.servers import Servers
from gateway.core.event import Partition
from gateway.errors import Unavailable


class Links:
    """Connections of a log to the one server, or to the nodes of a cluster, each made when it is needed."""

    def __init__(self, servers: Servers, gateway: str, counters: Counters) -> None:
        self.clustered = servers.clustered
        self._servers, self._gateway, self._counters = servers, gateway, counters
        #: Of the gateway's own keys, and of all reading where there is one server.
        self.own = self._greeted(gateway, f"{{{gateway}}}:format")
        #: What writes to each partition: several may share one.
        self.writes: dict[Partition, Link] = {}
        self._reads: dict[Partition, Link] = {}
        self._bulk: dict[Partition, Link] = {}

    @property
    def writing(self) -> tuple[Link, ...]:
        """Those that write, each once."""
        return tuple(dict.fromkeys(self.writes.values()))

    def to_write(self, app: AppLog, partitions: int) -> dict[Partition, Link]:
        """Make one for an application, since WAIT holds one up and only `replica` asks for it.

        In a cluster one for each partition, which may move alone.
        """
        names = app.partitions(partitions)
        if self.clustered:
            return {name: self._writer(app, [name]) for name in names}
        return dict.fromkeys(names, self._writer(app, names))

    def reading(self, partition: Partition) -> Link:
        """The one for what is read of ``partition``."""
        if not self.clustered:
            return self.own
        if partition not in self._reads:
            self._reads[partition] = self._greeted(partition, part(partition, "epochs"))
        return self._reads[partition]

    def bulk(self, partition: Partition) -> Link:
        """The one for megabytes of ``partition``: they come side by side, and nothing small waits behind them."""
        if partition not in self._bulk:
            self._bulk[partition] = self.another(partition)
        return self._bulk[partition]

    def another(self, tag: str) -> Link:
        """One more, for a reader that blocks; whoever asked closes it."""
        return Link(self._servers.place(tag), counters=self._counters)

    async def connect(self, links: Iterable[Link]) -> None:
        """Open ``links``, at once; of a cluster's nodes, those that answer."""
        answers = await asyncio.gather(*(link.wire() for link in links), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not (self.clustered and isinstance(answer, Unavailable)):
                raise answer

    async def check_replicas(self, apps: Sequence[AppLog]) -> None:
        """Raise `Misconfigured` where ``apps`` declare `replica` and a server has none."""
        if not any(app.durability == "replica" for app in apps):
            return
        for place in self._servers.places():
            link = Link(place)
            try:
                await promises.check_replicas(await link.wire(), apps)
            except Unavailable:
                if not self.clustered:
                    raise
            finally:
                await link.close()

    async def close(self) -> None:
        for link in (self.own, *self._reads.values(), *self._bulk.values(), *self.writing):
            await link.close()

    # --- how they are ---

    def away(self) -> int:
        """How many partitions nothing can be appended to now."""
        return sum(not link.up.is_set() for link in self.writes.values())

    def down_since(self) -> float | None:
        return min((link.down_since for link in self.writing if link.down_since is not None), default=None)

    def unready(self) -> list[str]:
        if self.clustered and self.away() < len(self.writes):
            return []
        return sorted({f"log: {link.why}" for link in self.writing if not link.up.is_set()})

    def _writer(self, app: AppLog, names: Sequence[Partition]) -> Link:
        async def greet(wire: Wire) -> None:
            await promises.check_server(wire, [app])
            await epochs.keep(wire, names, self._counters)

        return Link(self._servers.place(names[0]), greet, self._counters)

    def _greeted(self, tag: str, key: str) -> Link:
        """``key`` is one that is there: a node of a cluster that cannot serve it says so at the greeting."""

        async def greet(wire: Wire) -> None:
            await promises.check_server(wire, [])
            good((await wire.call(pack("EXISTS", key)))[0])

        return Link(self._servers.place(tag), greet, self._counters)


def by_link(writes: Mapping[Partition, Link]) -> dict[Link, list[Partition]]:
    """Return each connection with the partitions that it writes to."""
    found: dict[Link, list[Partition]] = {}
    for name, link in writes.items():
        found.setdefault(link, []).append(name)
    return found
