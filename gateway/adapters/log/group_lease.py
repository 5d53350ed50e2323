"""The lease of one partition for one group: what its holder may do until another takes it, and nothing after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec

from gateway import limits
from gateway.adapters.log import entry
from gateway.adapters.log.dead import DeadLetter, flat
from gateway.adapters.log.keys import REPLAYS, Counters, group_part, log_key, part
from gateway.adapters.log.link import Link, Script, backoff, good
from gateway.adapters.log.resp import Lost, Reply, pack
from gateway.core.event import Event, Meta, Partition, Position, Record
from gateway.core.lanes import Changes, Item
from gateway.errors import Fenced, Unavailable

SETTLE, HOLD = Script("settle"), Script("hold")
_decode_meta = msgspec.msgpack.Decoder(Meta).decode


class Parked(Item, gc=False, weakref=False, eq=False):
    """A parked event as the log remembers it: an `Item` for the lanes. ``due`` is in the loop's seconds.

    ``offset`` from `REPLAYS` on numbers a replay: a copy of a dead letter, not an entry of the log.
    """

    #: Server time in ms since 1970, when it was parked first.
    first_failed: int = 0


class Lease:
    """One worker's right to a partition of a group. `Groups.take` gives it; `release` it, or it expires.

    Every method but `fetch` raises `Fenced` once another worker took the partition, an operator voided the lease, or
    the log began a new epoch: then nothing was done, and what is in hand belongs to whoever takes it next.
    """

    def __init__(
        self,
        partition: Partition,
        group: str,
        token: str,
        reply: Sequence[Reply],
        links: tuple[Link, Link],
        counters: Counters,
    ) -> None:
        """Use `Groups.take`."""
        cursor, claimed, epoch, now, replayed, unclean, parked, crashes = cast(
            "tuple[bytes, bytes, bytes, bytes, bytes, int, list[bytes], list[bytes]]", tuple(reply)
        )
        self.partition = partition
        self.group = group
        self._token = token
        self._writes, self._reads = links
        self._counters = counters
        self._fence_keys = (part(partition, "epochs"), group_part(partition, group))
        self._serial = 0
        self._unknown = False
        self._replayed = self._known = int(replayed)
        #: The epoch it is bound to.
        self.epoch = int(epoch)
        #: Everything up to here is finished or parked: read on after it.
        self.cursor = int(cursor)
        #: The highest offset that a handler may have seen, of this worker or of one before that did not release.
        self.claimed = int(claimed)
        #: 0 where the holder before released. Else it died, or was fenced, and what it had in hand up to this offset is
        #: suspect, as is all that is parked: to be risked one at a time (see `suspect`).
        self.suspects_to = max(int(cursor), int(claimed), 1) if unclean else 0
        #: Somebody paused the group: drain and release.
        self.paused = False
        self._crashes = {int(offset): int(count) for offset, count in zip(crashes[::2], crashes[1::2], strict=True)}
        self.parked = self._parked(parked, int(now))

    @property
    def replays(self) -> bool:
        """Whether `fresh` has something new, as far as the last answer of the log said."""
        return self._replayed > self._known

    def crashes(self, offset: int) -> int:
        """How many workers died while they handled it alone, as of the take and `suspect`."""
        return self._crashes.get(offset, 0)

    async def settle(
        self,
        changes: Changes | None,
        claimed: int,
        letters: Sequence[DeadLetter] = (),
    ) -> None:
        """Remember ``changes`` and the letters of what was buried, all or nothing; extends the lease.

        ``claimed``: the highest offset that will have been handed to a handler before the next settle; say so before
        handing it out; it never falls. Waits while the server is away, and asks again with the same serial, so that
        nothing is done twice; raises `Fenced`. Cancelled, its outcome is unknown: the lease is given up. It does not
        wait for a replica: a failover voids the lease and forgets the newest settles and their letters together, so
        their events come again.
        """
        if self._unknown:
            raise self._lost("the outcome of an earlier settle is unknown")
        claimed = max(claimed, self.claimed)
        keys, arguments = self._settling(changes, claimed, letters)
        self._unknown = True
        self._heard(await self._insisting(keys, arguments))
        self._unknown = False
        self._serial += 1
        self._counters.settles += 1
        self._counters.buried += len(letters)
        self.claimed = claimed
        if changes is not None:
            self.cursor = changes.cursor

    async def suspect(self, offset: int) -> int:
        """Count a crash that may come, durably, before a suspect is handled alone; returns the count, this included.

        `Changes.survived` forgets it. Give it to `crashed` before the handler sees the event.
        """
        count = cast("int", self._heard(await self._hold("suspect", offset))[2])
        self._crashes[offset] = count
        return count

    async def renew(self) -> None:
        """Extend the lease; to be called several times per its time. Raises `Unavailable` while the server is away."""
        self._heard(await self._hold("renew"))

    async def release(self) -> None:
        """Hand over at once and cleanly: what is not finished now was never handed to a handler."""
        self._heard(await self._hold("release"))

    async def fresh(self) -> list[Parked]:
        """The replays that were asked for since the take or the last call: new items for the lanes, due at once."""
        if not self.replays:
            return []
        upto = self._replayed
        numbers = range(self._known + 1, upto + 1)
        key = group_part(self.partition, self.group, "parked")
        values = cast("list[bytes | None]", await self._reads.ask("HMGET", key, *numbers))
        self._known = upto
        found = zip(numbers, values, strict=True)
        return self._parked([part for n, value in found if value is not None for part in (b"%d" % n, value)], 0)

    async def fetch(self, items: Sequence[Item]) -> dict[int, Record]:
        """The events of parked ``items`` by the items' offsets, read back in pages.

        What is absent was trimmed, and stands among the dead letters, reason retention: finish it. The record of a
        replay holds its letter's data and the original position. Raises `Unavailable`.
        """
        found: dict[int, Record] = {}
        log, copies = log_key(self.partition), group_part(self.partition, self.group, "replays")
        for start in range(0, len(items), limits.LOG_PAGE):
            page = items[start : start + limits.LOG_PAGE]
            commands = []
            for item in page:
                if item.offset >= REPLAYS:
                    commands.append(pack("HGET", copies, item.offset))
                else:
                    id = f"{item.epoch}-{item.offset}"
                    commands.append(pack("XRANGE", log, id, id))
            for item, reply in zip(page, await self._reads.call(*commands), strict=True):
                record = self._record(item, good(reply))
                if record is not None:
                    found[item.offset] = record
        return found

    def _record(self, item: Item, reply: Reply) -> Record | None:
        if item.offset >= REPLAYS:
            return _copy(self.partition, cast("bytes", reply)) if reply is not None else None
        entries = cast("list[Reply]", reply)
        thing = entry.read(self.partition, entries[0]) if entries else None
        return thing if isinstance(thing, Record) else None

    async def _insisting(self, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> Reply:
        tries = 0
        while True:
            try:
                return await self._writes.run(SETTLE, keys, *arguments)
            except Unavailable:
                await asyncio.sleep(backoff(tries))
                tries += 1

    def _settling(
        self, changes: Changes | None, claimed: int, letters: Sequence[DeadLetter]
    ) -> tuple[Sequence[str], Sequence[bytes | str | int]]:
        names = (group_part(self.partition, self.group, name) for name in ("parked", "crashes", "replays"))
        keys = (*self._fence_keys, *names, part(self.partition, "dead"))
        flats = [flat(letter) for letter in letters]
        size = len(flats[0]) if flats else 0
        arguments: list[bytes | str | int] = [self._token, self._serial + 1]
        if changes is None:
            arguments += ("", "", claimed, limits.DEAD_KEPT, 0, 0, 0, size)
        else:
            arguments += (changes.cursor, changes.oldest, claimed, limits.DEAD_KEPT)
            arguments += (len(changes.parked), len(changes.released), len(changes.survived), size)
            now = asyncio.get_running_loop().time()
            for item in changes.parked:
                wait = 0 if item.due <= 0.0 else max(1, int((item.due - now) * 1000))
                arguments += (item.offset, item.epoch, item.attempts, wait, item.key, item.error)
            arguments += (*changes.released, *changes.survived)
        for fields in flats:
            arguments += fields
        return keys, arguments

    async def _hold(self, verb: str, offset: int = 0) -> Reply:
        keys = (*self._fence_keys, group_part(self.partition, self.group, "crashes"))
        return await self._writes.run(HOLD, keys, self._token, verb, offset)

    def _heard(self, reply: Reply) -> list[Reply]:
        if reply == b"FENCED":
            raise self._lost("another holds it, an operator voided it, or the log began a new epoch")
        if not isinstance(reply, list):
            raise Lost(f"the log server answered {reply!r}")
        self.paused = reply[0] == b"1"
        self._replayed = int(cast("bytes", reply[1]))
        return reply

    def _lost(self, why: str) -> Fenced:
        self._counters.fenced += 1
        return Fenced(f"the lease of {self.partition} for {self.group} is lost: {why}", "take it again")

    def _parked(self, flat_: Sequence[bytes], server_now: int) -> list[Parked]:
        now = asyncio.get_running_loop().time()
        found = []
        for offset, value in zip(flat_[::2], flat_[1::2], strict=True):
            head, _, rest = value.partition(b"\n")
            epoch, attempts, due, first, length = map(int, head.split(b" "))
            wait = (due - server_now) / 1000
            found.append(
                Parked(
                    epoch,
                    int(offset),
                    rest[:length].decode(),
                    attempts,
                    self._crashes.get(int(offset), 0),
                    parked=True,
                    due=now + wait if due and wait > 0 else 0.0,
                    error=rest[length:].decode(errors="replace"),
                    first_failed=first,
                )
            )
        return sorted(found, key=lambda item: item.offset)


def _copy(partition: Partition, value: bytes) -> Record:
    """A replay as ``replay.lua`` stores it."""
    line, _, rest = value.partition(b"\n")
    at, *sizes = line.split(b" ")
    topic, id, meta = map(int, sizes)
    place: Position = entry.position(at)
    event = Event(
        rest[:topic].decode(),
        rest[topic + id + meta :],
        rest[topic : topic + id].decode(),
        _decode_meta(rest[topic + id : topic + id + meta]),
    )
    return Record(event, partition, place.epoch, place.offset)
