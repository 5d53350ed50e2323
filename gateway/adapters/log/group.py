"""Groups: each event to one worker of each service, by leases of partitions, a cursor and an unfinished set."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import msgspec

from gateway import limits
from gateway.adapters.log import epochs
from gateway.adapters.log.entry import position
from gateway.adapters.log.group_lease import Lease
from gateway.adapters.log.keys import Counters, group_part, log_key, part, parts
from gateway.adapters.log.link import Link, Script, good
from gateway.adapters.log.resp import Reply, last_id, pack
from gateway.core.event import Partition
from gateway.errors import Busy, LimitReached, Misconfigured, NotAvailable, Unavailable

LEASE, SEEK, REPLAY, BEAT = Script("lease"), Script("seek"), Script("replay"), Script("beat")

#: The keys of a group are named after it, so a name is one word: no colon, no brace.
_NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)

Start = Literal["earliest", "latest"] | int


class GroupState(msgspec.Struct, frozen=True):
    """How far a group is in one partition."""

    partition: Partition
    group: str
    #: Everything up to here is finished or parked.
    cursor: int
    #: Offset of the partition's newest entry.
    top: int
    #: Entries after the cursor that are still kept, of interest or not.
    lag: int
    #: Events that wait for another try or behind one that does, replays included.
    parked: int
    #: The oldest unfinished offset: trimming stops before it.
    oldest: int
    #: The worker that holds the partition; empty where none does.
    holder: str
    paused: bool


class Groups:
    """The groups of every partition. `Log.groups` is one; its methods raise `Unavailable` while the server is away."""

    def __init__(
        self,
        writes: Callable[[Partition], Link],
        reads: Callable[[Partition], Link],
        own: Link,
        gateway: str,
        counters: Counters,
    ) -> None:
        self._writes = writes
        self._reads = reads
        self._own = own
        self._gateway = gateway
        self._counters = counters

    async def take(self, partition: Partition, group: str, worker: str, start: Start, ttl: float) -> Lease | None:
        """The lease of ``partition``, for ``ttl`` seconds of the server's clock; None while it is held or paused.

        A group that is not there yet begins at ``start``: before the oldest kept entry, after the newest, or after an
        offset. Only a free, expired or voided lease is given, or one that ``worker`` itself was given before: who was
        killed and is started again under its name waits for nothing, and what is left of it is fenced. A lease is bound
        to the epoch, and a new one voids it.
        """
        token = secrets.token_hex(12)
        keys = (*parts(partition, "epochs", "groups"), *self._keys(partition, group, "", "parked", "crashes"))
        link = self._writes(partition)
        arguments = (group, token, worker, int(ttl * 1000), start)
        reply = await link.run(LEASE, keys, *arguments)
        if reply == b"STALE":
            await epochs.keep(await link.wire(), [partition], self._counters)
            reply = await link.run(LEASE, keys, *arguments)
        if not isinstance(reply, list):
            raise Unavailable(f"the log {log_key(partition)} changes under us", retry_after=0.5)
        if reply[0] != b"OK":
            return None
        return Lease(partition, group, token, reply[1:], (link, self._reads(partition)), self._counters)

    async def names(self, partition: Partition) -> list[str]:
        """The groups that have ever begun in ``partition`` and were not forgotten."""
        members = cast("list[bytes]", await self._reads(partition).ask("SMEMBERS", part(partition, "groups")))
        return sorted(name.decode() for name in members)

    async def begun(self, partitions: Iterable[Partition], group: str) -> list[Partition]:
        """Those of ``partitions`` where ``group`` has begun."""
        return [partition for partition in partitions if group in await self.names(partition)]

    async def states(self, partitions: Iterable[Partition]) -> list[GroupState]:
        """How far every group is in each of ``partitions``."""
        return [await self.ask(partition, group) for partition in partitions for group in await self.names(partition)]

    async def ask(self, partition: Partition, group: str) -> GroupState:
        """How far it is; raises `NotAvailable` where it never began."""
        key, parked = self._keys(partition, group, "", "parked")
        fields = ("cursor", "oldest", "holder", "until", "epoch", "paused")
        replies = await self._reads(partition).call(
            pack("HMGET", key, *fields),
            pack("HLEN", parked),
            pack("XINFO", "STREAM", log_key(partition)),
            pack("XRANGE", log_key(partition), "-", "+", "COUNT", 1),
            pack("TIME"),
            pack("HGET", part(partition, "epochs"), "current"),
        )
        cursor, oldest, holder, until, epoch, paused = cast("list[bytes | None]", good(replies[0]))
        if cursor is None:
            raise self._absent(partition, group)
        top = position(last_id(replies[2])).offset
        kept = cast("list[list[Reply]]", good(replies[3]))
        floor = position(cast("bytes", kept[0][0])).offset - 1 if kept else top
        seconds, micros = cast("list[bytes]", good(replies[4]))
        now = int(seconds) * 1000 + int(micros) // 1000
        held = int(until or 0) > now and epoch == replies[5]
        return GroupState(
            partition,
            group,
            cursor=int(cursor),
            top=top,
            lag=max(0, top - max(int(cursor), floor)),
            parked=cast("int", good(replies[1])),
            oldest=int(oldest or 0),
            holder=(holder or b"").decode() if held else "",
            paused=paused == b"1",
        )

    async def pause(self, partition: Partition, group: str) -> None:
        """Give no lease until `resume`. The holder sees it with its next settle or renewal, drains and releases."""
        await self._set_paused(partition, group, "1")

    async def resume(self, partition: Partition, group: str) -> None:
        await self._set_paused(partition, group, "")

    async def seek(self, partition: Partition, group: str, to: Start, *, void: bool = False) -> int:
        """Read on after ``to``; returns the cursor, which stays within what the log still has.

        Parked events after it are forgotten, since they are read again; those before it and replays stay. Raises
        `Busy` while a worker holds the partition, unless ``void``: then that worker is fenced.
        """
        keys = (*parts(partition, "epochs"), *self._keys(partition, group, "", "parked", "crashes"))
        reply = await self._writes(partition).run(SEEK, keys, to, int(void))
        if reply == b"ABSENT":
            raise self._absent(partition, group)
        if reply == b"HELD":
            raise Busy(f"a worker of {group} holds {partition}", "pause the group first, or void its lease")
        return int(cast("bytes", reply))

    async def offset_at(self, partition: Partition, ts: int) -> int:
        """An offset to `seek` for everything since ``ts``, in ms since 1970 by the server's clock.

        By the partition's marks, so up to `limits.MARK_EVERY` earlier; where they do not reach, 0.
        """
        reply = await self._reads(partition).ask(
            "ZREVRANGEBYSCORE", part(partition, "marks"), ts, "-inf", "LIMIT", 0, 1
        )
        found = cast("list[bytes]", reply)
        return position(found[0]).offset if found else 0

    async def forget(self, partition: Partition, group: str) -> None:
        """Remove the group with its parked events and replays; trimming asks it no more. A holder is fenced."""
        keys = self._keys(partition, group, "", "parked", "crashes", "replays")
        # All at once: a name without a state, or a state that trimming does not know of, would be found by a taker.
        replies = await self._writes(partition).call(
            pack("MULTI"), pack("DEL", *keys), pack("SREM", part(partition, "groups"), group), pack("EXEC")
        )
        for reply in replies:
            good(reply)

    async def replay(
        self, partition: Partition, group: str, ids: Sequence[str], data: bytes | None = None
    ) -> dict[str, int]:
        """Give dead letters back to ``group`` alone, each with its original id, topic and meta; letter id → number.

        ``data`` replaces the payload. Each is a parked copy, due at once, that outlives workers and trimming until it
        is finished or buried again; its letter goes in the same call. Letters that are gone or of another group are
        left out. Raises `LimitReached` once `limits.PARKED` events wait (what came before is done).
        """
        keys = (part(partition, "dead"), *self._keys(partition, group, "", "parked", "replays"))
        edited = (0, b"") if data is None else (1, data)
        done: dict[str, int] = {}
        ids = list(dict.fromkeys(ids))
        for start in range(0, len(ids), limits.LOG_PAGE):
            page = ids[start : start + limits.LOG_PAGE]
            letters = [argument for id in page for argument in (id, *edited)]
            reply = await self._writes(partition).run(REPLAY, keys, group, limits.PARKED, *letters)
            answers = dict(zip(page, cast("list[bytes]", reply), strict=True))
            numbers = {id: int(answer) for id, answer in answers.items() if answer.isdigit()}
            done |= numbers
            self._counters.replayed += len(numbers)
            if b"full" in answers.values():
                raise LimitReached(f"{limits.PARKED} events of {group} wait in {partition}", "replay the rest later")
        return done

    async def beat(self, group: str, worker: str) -> list[str]:
        """Say that ``worker`` lives; returns the living workers of ``group``, sorted, this one included."""
        return await self._beat(group, worker, leaves=False)

    async def leave(self, group: str, worker: str) -> list[str]:
        """Say that ``worker`` ends, so that the others share its partitions at once; returns who is left."""
        return await self._beat(group, worker, leaves=True)

    async def _beat(self, group: str, worker: str, *, leaves: bool) -> list[str]:
        key = f"{{{self._gateway}}}:workers:{_named(group)}"
        reply = await self._own.run(BEAT, (key,), worker, int(limits.WORKER_SILENT * 1000), int(leaves))
        return [name.decode() for name in cast("list[bytes]", reply)]

    async def _set_paused(self, partition: Partition, group: str, value: str) -> None:
        (key,) = self._keys(partition, group, "")
        # Also of a group that has not begun: it is then made paused, and begins where it is told to when it is resumed.
        await self._writes(partition).ask("HSET", key, "paused", value)

    def _keys(self, partition: Partition, group: str, *names: str) -> tuple[str, ...]:
        _named(group)
        return tuple(group_part(partition, group, name) for name in names)

    def _absent(self, partition: Partition, group: str) -> NotAvailable:
        return NotAvailable(f"no group {group!r} has begun in {partition}", "see: gateway groups")


def _named(group: str) -> str:
    if not _NAME.fullmatch(group):
        raise Misconfigured(f"a group cannot be named {group!r}", "use letters, digits, '.', '_' and '-'")
    return group
