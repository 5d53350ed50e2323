"""Replies: what a service answered to a request, kept for a repeat and announced to every edge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import msgspec

from gateway import limits
from gateway.adapters.log.entry import position
from gateway.adapters.log.keys import part
from gateway.adapters.log.link import Link, Script, good, missing_script
from gateway.adapters.log.resp import Reply as Raw
from gateway.adapters.log.resp import Wire, last_id, pack
from gateway.adapters.log.returning import Returning
from gateway.core.event import Partition

REPLY, ANNOUNCE = Script("reply"), Script("announce")

#: Which request: the partition and the id of its event.
Request: TypeAlias = tuple[Partition, str]


class Reply(msgspec.Struct, frozen=True):
    """What became of one request."""

    #: Empty where it was done; else a stable word, such as ``rejected``.
    code: str = ""
    error: str = ""
    #: JSON.
    data: bytes = b"null"


class News(msgspec.Struct):
    """What one read of the announcements brought."""

    requests: list[Request]
    #: Others may have been missed: whoever waits looks at what is stored.
    lost: bool = False


class Replies:
    """The replies of every partition. `Log.replies` is one; its methods raise `Unavailable` while the server is away.

    A reply is stored before it is announced, and the announcement holds no payload: each edge hears of every reply,
    and only the one where somebody waits reads it.
    """

    def __init__(
        self,
        writes: Callable[[Partition], Link],
        reads: Callable[[Partition], Link],
        own: Link | None,
        dial: Callable[[], Link],
        gateway: str,
        kept: Callable[[Partition], float],
    ) -> None:
        """``own``: where announcements go, if they cannot go with the replies.

        ``kept``: seconds for which replies of a partition are kept, see `limits.REPLY_KEPT`.
        """
        self._writes = writes
        self._reads = reads
        self._own = own
        self._dial = dial
        self._stream = f"{{{gateway}}}:replies"
        self._kept = kept
        self._tails: list[Announcements] = []

    async def send(self, partition: Partition, id: str, reply: Reply) -> None:
        """Store the reply to the event ``id`` of ``partition`` and tell every edge. Sent again, the first one stays.

        Only that an event was given up gives way to a later success: somebody replayed its dead letter. Stored as long
        as the log keeps events by their age, so as long as a repeat of the request is known for one.
        """
        kept = max(limits.REPLY_KEPT, self._kept(partition))
        stored = ((_key(partition, id),), _packed(reply), int(kept * 1000))
        announced = ((self._stream,), partition, id, limits.REPLIES_ANNOUNCED)
        link = self._writes(partition)
        # In this order: whoever hears of a reply finds it.
        if self._own is not None:
            await link.run(REPLY, *stored)
            await self._own.run(ANNOUNCE, *announced)
            return
        commands = REPLY.call(*stored), ANNOUNCE.call(*announced)
        answers = await link.call(*commands)
        if any(missing_script(answer) for answer in answers):
            answers = (await link.call(REPLY.load, ANNOUNCE.load, *commands))[2:]
        for answer in answers:
            good(answer)

    async def stored(self, partition: Partition, id: str) -> Reply | None:
        """The reply to the event ``id``; None where there is none, not yet or not any more."""
        return (await self.stored_many([(partition, id)]))[0]

    async def stored_many(self, requests: Sequence[Request]) -> list[Reply | None]:
        """As `stored`, of each; a caller passes at most `limits.LOG_PAGE` of them."""
        if not requests:
            return []
        by_link: defaultdict[Link, list[int]] = defaultdict(list)
        for index, (partition, _) in enumerate(requests):
            by_link[self._reads(partition)].append(index)
        found: list[Reply | None] = [None] * len(requests)
        for link, indices in by_link.items():
            values = await link.call(*(pack("GET", _key(*requests[index])) for index in indices))
            for index, value in zip(indices, values, strict=True):
                found[index] = _unpacked(good(value))
        return found

    def tail(self) -> Announcements:
        """A new reader of the announcements; `Announcements.close` it, or `close` closes it."""
        self._tails = [tail for tail in self._tails if not tail.closed]
        tail = Announcements(self._dial(), self._stream)
        self._tails.append(tail)
        return tail

    async def close(self) -> None:
        for tail in self._tails:
            await tail.close()


class Announcements(Returning[News]):
    """What is announced from now on, for one edge; iterate, then `close` it.

    It reconnects by itself for ever, with the pauses of `limits.LOG_BACKOFF`. Each connection begins with News that is
    ``lost``: what was announced before it is not read.
    """

    def __init__(self, link: Link, stream: str) -> None:
        super().__init__(link)
        self._stream = stream
        self._at = 0
        self._known: Wire | None = None

    async def _next(self, wire: Wire) -> News | None:
        if self._known is not wire:
            self._at = await self._top(wire)
            self._known = wire
            return News([], lost=True)
        block = int(limits.TAIL_BLOCK * 1000)
        ask = pack("XREAD", "COUNT", limits.LOG_PAGE, "BLOCK", block, "STREAMS", self._stream, f"0-{self._at}")
        reply = good((await wire.call(ask))[0])
        if reply is None:
            if await self._top(wire) < self._at:
                self._known = None  # the server lost its memory; a read beyond its top would wait for ever
            return None
        ((_, entries),) = cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", reply)
        first, last = position(entries[0][0]).offset, position(entries[-1][0]).offset
        news = News([(fields[1].decode(), fields[3].decode()) for _, fields in entries], lost=first != self._at + 1)
        self._at = last
        return news

    async def _top(self, wire: Wire) -> int:
        return position(last_id((await wire.call(pack("XINFO", "STREAM", self._stream)))[0])).offset


def _key(partition: Partition, id: str) -> str:
    return part(partition, f"reply:{id}")


def _packed(reply: Reply) -> bytes:
    if not reply.code:
        return b"+" + reply.data
    return b"-%b\n%b" % (reply.code.encode(), reply.error[: limits.REPLY_ERROR].encode(errors="replace"))


def _unpacked(value: Raw) -> Reply | None:
    if not isinstance(value, bytes):
        return None
    if value.startswith(b"+"):
        return Reply(data=value[1:])
    code, _, error = value[1:].partition(b"\n")
    return Reply(code.decode(), error.decode(), b"null")
