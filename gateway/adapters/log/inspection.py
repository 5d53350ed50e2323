"""An inspection: the log server and its partitions as they stand, read on a connection that changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import msgspec

from gateway import limits
from gateway.adapters.log import dead, entry, epochs, promises
from gateway.adapters.log.entry import Corrupt, position
from gateway.adapters.log.group import Groups, GroupState
from gateway.adapters.log.keys import REPLAYS, AppLog, Counters, group_part, log_key, part
from gateway.adapters.log.link import Link, good
from gateway.adapters.log.promises import parse_info
from gateway.adapters.log.resp import Reply, last_id, pack
from gateway.adapters.log.servers import Servers
from gateway.core.event import Partition, Position
from gateway.errors import Unavailable

#: The highest offset that an entry of ours can have: whatever is behind it is another program's.
_END = REPLAYS - 1


class ServerState(msgspec.Struct, frozen=True):
    """What INFO says. Sizes in bytes."""

    #: Where it listens.
    place: str
    version: str
    #: Which life of the server it is (`master_replid`).
    life: str
    memory_used: int
    #: What it may use: its own bound, else all that the machine has; 0: it does not say.
    memory_bound: int
    #: Keys that it threw away to make room.
    evicted: int
    #: Whether the last write to the append-only file, its last rewrite and the last snapshot went well.
    writes_ok: bool
    rewrite_ok: bool
    snapshot_ok: bool
    #: Its clock, in milliseconds since 1970.
    now: int


class PartitionState(msgspec.Struct, frozen=True):
    """One partition's log."""

    partition: Partition
    #: Entries that are kept, and the highest id that was ever given.
    length: int
    top: Position
    #: The open epoch, and the life of the server that it was opened in; 0 where none ever was.
    epoch: int
    life: str
    #: Its epochs, oldest first: each is the time in ms at which it was opened, or just above the one before.
    epochs: tuple[int, ...]
    #: Server times in ms of its newest and oldest marks; 0 without any.
    marked: int
    marked_first: int
    dead: int
    groups: tuple[str, ...]
    #: Whether the top is none of ours: then no append succeeds. The entries there, at most `limits.DOCTOR_NAMED`, and
    #: the last of ours; empty where none is kept.
    blocked: bool = False
    above: tuple[str, ...] = ()
    last: str = ""


class Damage(msgspec.Struct, frozen=True):
    """An entry that is delivered to nobody: its checksum is wrong, or another program wrote it."""

    partition: Partition
    #: Of the entry, or of the last value's position.
    id: str
    reason: str


class Scan(msgspec.Struct, frozen=True):
    """What reading some entries of a partition brought."""

    seen: int = 0
    #: At most `limits.DOCTOR_NAMED` of `damages`.
    damaged: tuple[Damage, ...] = ()
    damages: int = 0
    #: Offsets that were given and are not there.
    holes: int = 0


class ParkedState(msgspec.Struct, frozen=True):
    """The event of a group that was parked first."""

    #: Milliseconds since 1970, by the server's clock.
    since: int
    attempts: int
    error: str


class BridgeState(msgspec.Struct, frozen=True):
    """Who serves a broker; ``holder`` is empty where nobody does."""

    holder: str
    term: int


class Inspection:
    """Reads one gateway's log; `open` it, `close` it. Every other method raises `Unavailable`, and `Misconfigured`."""

    def __init__(self, servers: Servers, gateway: str) -> None:
        """Use `open`."""
        # Not `Log`, which opens epochs and stores the format; nor greeted: a server that gives too little is looked at.
        self._servers = servers
        self._gateway = gateway
        self._links: dict[str, Link] = {}
        self._groups = Groups(self._link, self._link, self._link(gateway), gateway, Counters())

    @classmethod
    async def open(cls, url: str, gateway: str) -> Inspection:
        return cls(await Servers.find(url), gateway)

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()

    def _link(self, tag: str) -> Link:
        if not self._servers.clustered:
            tag = self._gateway
        if tag not in self._links:
            self._links[tag] = Link(self._servers.place(tag))
        return self._links[tag]

    async def promised(self, logs: Sequence[AppLog]) -> None:
        """Raise `Misconfigured` where a server gives less than ``logs`` declare, as a process would at its start.

        Of a cluster's nodes, those that answer are asked.
        """
        for place in self._servers.places():
            link = Link(place)
            try:
                wire = await link.wire()
                await promises.check_server(wire, logs)
                await promises.check_replicas(wire, logs)
            except Unavailable:
                if not self._servers.clustered:
                    raise
            finally:
                await link.close()

    async def servers(self) -> list[ServerState | Unavailable]:
        """The state of the one server, or of each node of the cluster that has slots, or why that is not known."""
        found = list[ServerState | Unavailable]()
        for place in self._servers.places():
            link = Link(place)
            try:
                found.append(await self._server(link))
            except Unavailable as error:
                if not self._servers.clustered:
                    raise
                found.append(error)
            finally:
                await link.close()
        return found

    async def server(self, partition: Partition) -> ServerState:
        """The state of the server that has ``partition``."""
        return await self._server(self._link(partition))

    async def _server(self, link: Link) -> ServerState:
        replies = await link.call(pack("INFO"), pack("TIME"))
        info = parse_info(good(replies[0]))
        seconds, micros = cast("list[bytes]", good(replies[1]))
        return ServerState(
            place=link.place,
            version=info.get("valkey_version") or info.get("redis_version", ""),
            life=info.get("master_replid", ""),
            memory_used=int(info.get("used_memory", "0")),
            memory_bound=int(info.get("maxmemory", "0")) or int(info.get("total_system_memory", "0")),
            evicted=int(info.get("evicted_keys", "0")),
            writes_ok=info.get("aof_last_write_status", "ok") == "ok",
            rewrite_ok=info.get("aof_last_bgrewrite_status", "ok") == "ok",
            snapshot_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
            now=int(seconds) * 1000 + int(micros) // 1000,
        )

    async def partition(self, partition: Partition) -> PartitionState:
        key, marks = log_key(partition), part(partition, "marks")
        replies = await self._link(partition).call(
            pack("XINFO", "STREAM", key),
            pack("XLEN", key),
            epochs.ask(partition),
            pack("HMGET", part(partition, "epochs"), "current", "replid"),
            pack("ZREVRANGE", marks, 0, 0, "WITHSCORES"),
            pack("ZRANGE", marks, 0, 0, "WITHSCORES"),
            pack("XLEN", part(partition, "dead")),
        )
        current, life = cast("list[bytes | None]", good(replies[3]))
        newest, oldest = (cast("list[bytes]", good(reply)) for reply in replies[4:6])
        epoch, top = int(current or 0), position(last_id(replies[0]))
        blocked = epoch > 0 and top > Position(epoch, _END)
        above, last = await self._above(partition, epoch) if blocked else ((), "")
        return PartitionState(
            partition,
            cast("int", good(replies[1])),
            top,
            epoch,
            (life or b"").decode(),
            tuple(sorted(epochs.table(good(replies[2])).first)),
            int(newest[1]) if newest else 0,
            int(oldest[1]) if oldest else 0,
            cast("int", good(replies[6])),
            tuple(await self._groups.names(partition)),
            blocked,
            above,
            last,
        )

    async def _above(self, partition: Partition, epoch: int) -> tuple[tuple[str, ...], str]:
        key = log_key(partition)
        replies = await self._link(partition).call(
            pack("XRANGE", key, f"({epoch}-{_END}", "+", "COUNT", limits.DOCTOR_NAMED),
            pack("XREVRANGE", key, f"{epoch}-{_END}", "-", "COUNT", 1),
        )
        found, ours = (
            [id.decode() for id, _ in cast("list[tuple[bytes, list[bytes]]]", good(reply))] for reply in replies
        )
        return tuple(found), ours[0] if ours else ""

    async def scan(self, state: PartitionState, most: int) -> Scan:
        """Read the newest ``most`` entries of ours, and as many last values: a page at a time."""
        seen, damaged, holes, before = 0, list[Damage](), 0, 0
        damages = 0

        def note(where: str, reason: str) -> None:
            nonlocal damages
            damages += 1
            if damages <= limits.DOCTOR_NAMED:
                damaged.append(Damage(state.partition, where, reason))

        end = f"{state.epoch}-{_END}"
        while seen < most:
            reply = await self._link(state.partition).ask(
                "XREVRANGE", log_key(state.partition), end, "-", "COUNT", min(limits.LOG_PAGE, most - seen)
            )
            page = cast("list[tuple[bytes, list[bytes]]]", reply)
            if not page:
                break
            for raw in page:
                at = position(raw[0])
                holes += max(0, before - at.offset - 1) if before else 0
                before = at.offset
                thing = entry.read(state.partition, cast("Reply", raw))
                if isinstance(thing, Corrupt):
                    note(str(at), thing.reason)
            seen += len(page)
            end = f"({page[-1][0].decode()}"
        cursor, values = b"0", 0
        while values < most:
            answer = await self._link(state.partition).ask(
                "HSCAN", part(state.partition, "last"), cursor, "COUNT", limits.LOG_PAGE
            )
            cursor, flat = cast("tuple[bytes, list[bytes]]", answer)
            for topic, value in zip(flat[::2], flat[1::2], strict=True):
                values += 1
                kept = entry.read_last(state.partition, topic, value)
                if isinstance(kept, Corrupt):
                    note(topic.decode(errors="replace"), kept.reason)
            if cursor == b"0":
                break
        return Scan(seen, tuple(damaged), damages, holes)

    async def letters(self, partition: Partition, most: int) -> Counter[tuple[str, str]]:
        """How many of the oldest ``most`` dead letters each group gave up, by reason."""
        found, after, seen = Counter[tuple[str, str]](), "-", 0
        while seen < most:
            page = await dead.dead(self._link(partition), partition, after, min(limits.LOG_PAGE, most - seen))
            if not page:
                break
            found.update((letter.group, letter.reason) for _, letter in page)
            seen, after = seen + len(page), page[-1][0]
        return found

    async def group(self, partition: Partition, group: str) -> GroupState:
        """How far it is; raises `NotAvailable` where it was forgotten meanwhile."""
        return await self._groups.ask(partition, group)

    async def parked(self, partition: Partition, group: str) -> ParkedState | None:
        """The first of the events that were parked; None where none is."""
        first: ParkedState | None = None
        cursor, seen = b"0", 0
        while seen <= limits.PARKED:
            key = group_part(partition, group, "parked")
            cursor, flat = cast("tuple[bytes, list[bytes]]", await self._link(partition).ask("HSCAN", key, cursor))
            for value in flat[1::2]:
                head, _, rest = value.partition(b"\n")
                _, attempts, _, since, length = map(int, head.split(b" "))
                if first is None or since < first.since:
                    first = ParkedState(since, attempts, rest[length:].decode(errors="replace"))
            seen += len(flat) // 2
            if cursor == b"0":
                break
        return first

    async def workers(self, group: str) -> list[str]:
        """The workers of ``group`` that live."""
        return await self._lively(f"workers:{group}", limits.WORKER_SILENT)

    async def edges(self) -> list[str]:
        """The names of the edges that live."""
        return await self._lively("edges", limits.EDGE_SILENT)

    async def bridge(self, name: str) -> BridgeState:
        """Who serves the broker of the bridges ``name``."""
        key = f"{{{self._gateway}}}:bridge:{name}"
        replies = await self._link(self._gateway).call(
            pack("HMGET", key, "lease", "holder", "until", "term"), pack("TIME")
        )
        lease, holder, until, term = cast("list[bytes | None]", good(replies[0]))
        seconds, micros = cast("list[bytes]", good(replies[1]))
        holds = bool(lease) and int(until or 0) > int(seconds) * 1000 + int(micros) // 1000
        return BridgeState((holder or b"").decode(errors="replace") if holds else "", int(term or 0))

    async def _lively(self, name: str, silent: float) -> list[str]:
        """The fields of a hash whose value begins with a server time in ms that is not long ago."""
        replies = await self._link(self._gateway).call(pack("HGETALL", f"{{{self._gateway}}}:{name}"), pack("TIME"))
        flat = cast("list[bytes]", good(replies[0]))
        seconds, micros = cast("list[bytes]", good(replies[1]))
        now = int(seconds) * 1000 + int(micros) // 1000
        found = zip(flat[::2], flat[1::2], strict=True)
        # Abs: as the Lua beside it, for clocks that were set back.
        lively = [field.decode() for field, value in found if abs(now - int(value.split(b" ")[0])) <= silent * 1000]
        return sorted(lively)
