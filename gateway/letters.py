"""Dead letters as an operator handles them: found, read, given back to their service, edited, dropped."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log
from gateway.core.declared import Declared, valid
from gateway.core.event import Partition
from gateway.core.ingest import Arrived, Decode, Ingest, Rejected
from gateway.core.mapping import TopicMap
from gateway.core.topic import check_filter, matches
from gateway.errors import GatewayError, NotAvailable, Refused, Unavailable

T = TypeVar("T")

_audit = logging.getLogger("gateway.audit")
#: An id of a stream: two numbers of 64 bits. Redis would also take - and +, and one number for the first of many.
_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_GONE = "it may have been replayed, edited or dropped: list what is there"


class StillRefused(Refused):
    """A message that no declaration lets in, even now."""

    code = "still_refused"
    status = 422


class NoLetter(NotAvailable):
    """No dead letter lies there, or none any more."""

    code = "no_letter"


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a letter lies: ``shop.3/1763829000000-0``."""

    partition: Partition
    id: str

    def __str__(self) -> str:
        return f"{self.partition}/{self.id}"


class Which(msgspec.Struct, frozen=True):
    """Which letters: all that meet every field; an empty one asks for nothing. Raises :class:`BadTopic`."""

    group: str = ""
    reason: str = ""
    #: A topic filter.
    topic: str = ""

    def __post_init__(self) -> None:
        if self.topic:
            check_filter(self.topic)

    def meets(self, letter: DeadLetter) -> bool:
        return (
            (not self.group or letter.group == self.group)
            and (not self.reason or letter.reason == self.reason)
            and (not self.topic or matches(self.topic, letter.topic))
        )


class Progress(msgspec.Struct, frozen=True):
    """How far a change of many letters is."""

    done: int
    #: Gone meanwhile, or refused.
    left_out: int
    #: Why the last one was refused.
    why: str = ""


Found = tuple[Address, DeadLetter]
Change = Callable[[Address, DeadLetter], Awaitable[bool]]


class Page(msgspec.Struct, frozen=True):
    """Some of the letters that were asked for."""

    found: list[Found]
    #: Behind which the next page begins; None at the end. A page may be empty and not the last.
    next: Address | None


class Letters:
    """The dead letters of a log, those of no topic among them. Each change is told to the log ``gateway.audit``.

    A letter of no group never was in the log: a device's message that was refused. It is judged again by ``topic_map``
    and ``decoders``, and appended by the log, which must run. A change of one letter is never cut in half by whoever
    stops waiting for it: :meth:`end` waits for it.
    """

    def __init__(
        self,
        log: Log,
        declared: Declared,
        gateway: str = "gateway",
        topic_map: TopicMap | None = None,
        decoders: Mapping[str, Decode] | None = None,
    ) -> None:
        self._log = log
        self._map = topic_map or TopicMap(())
        self._ingest = Ingest(declared, decoders or {}, "")
        self._declared = declared
        self._strays = f"{gateway}.0"
        #: Changes of one letter each.
        self.under_way: set[asyncio.Task[object]] = set()
        self._one_by_one = asyncio.Lock()
        self._ending = asyncio.Event()

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Where letters are; the last holds what no declared topic matched."""
        return tuple(dict.fromkeys((*self._log.partitions(), self._strays)))

    async def find(self, which: Which, limit: int) -> AsyncGenerator[Found]:
        """Yield at most ``limit`` letters, each partition's oldest first."""
        left = limit
        async with aclosing(self._all()) as letters:
            async for at, letter in letters:
                if which.meets(letter):
                    yield at, letter
                    left -= 1
                    if left <= 0:
                        return

    async def page(self, which: Which, limit: int, after: Address | None = None) -> Page:
        """Return at most ``limit`` letters behind ``after``, in the order of :meth:`find`.

        Looks at ``limits.DEAD_SEEN`` letters and ``limits.DEAD_SEEN_BYTES`` at most. Raises :class:`NoLetter` where
        ``after`` names no partition; the letter itself may be gone.
        """
        found, seen, size = list[Found](), 0, 0
        async with aclosing(self._all(after)) as letters:
            async for at, letter in letters:
                if which.meets(letter):
                    found.append((at, letter))
                seen += 1
                size += len(letter.data) + len(letter.traceback)
                if len(found) >= limit or seen >= limits.DEAD_SEEN or size >= limits.DEAD_SEEN_BYTES:
                    return Page(found, at)
        return Page(found, None)

    async def read(self, at: Address) -> DeadLetter:
        """Return the letter at ``at``; raises :class:`NoLetter`."""
        self._check(at.partition)
        letter = await self._log.dead_letter(at.partition, at.id)
        if letter is None:
            raise NoLetter(f"there is no dead letter {at}", _GONE)
        return letter

    def replay(self, who: str, places: Iterable[Address], rate: float = 0.0) -> AsyncGenerator[Progress]:
        """Give letters back to the group of each, and to no other, with their own id; at most ``rate`` a second.

        A letter of no group is published, if it may be now; otherwise it is left out, with the reason. Yields after
        each letter; who reads no further stops the rest. Raises :class:`LimitReached` where too many wait already, and
        :class:`Unavailable` once this process ends; what came before is done.
        """

        async def give(at: Address, letter: DeadLetter) -> bool:
            if not letter.group:
                return await self._publish(at, letter, letter.data, letter.meta.type)
            return bool(await self._log.groups.replay(at.partition, letter.group, [at.id]))

        return self._each("replay", who, places, give, rate)

    def drop(self, who: str, places: Iterable[Address], rate: float = 0.0) -> AsyncGenerator[Progress]:
        """Forget letters for good; yields and raises as :meth:`replay`."""

        async def drop(at: Address, letter: DeadLetter) -> bool:
            return bool(await self._log.drop_dead(at.partition, [at.id]))

        return self._each("drop", who, places, drop, rate)

    async def edit(self, who: str, at: Address, data: bytes) -> None:
        """Replay the letter at ``at`` with another payload, in the form that its topic takes.

        Raises :class:`NoLetter`, and what its topic's declaration refuses.
        """

        async def edit() -> None:
            letter = await self.read(at)
            if letter.group:
                checked = valid(self._declared.find(letter.topic).topic, data)
                there = bool(await self._log.groups.replay(at.partition, letter.group, [at.id], checked))
            else:
                topic = self._declared.find(self._map.resolve(letter.topic) or letter.topic).topic
                # What an operator writes is JSON already: it is not for the decoder of what the device sent.
                there = await self._publish(at, letter, data, "" if topic.payload == "json" else letter.meta.type)
            if not there:
                raise NoLetter(f"{at} is gone, or {letter.group or 'nobody'} does not take it back", _GONE)
            self._said("edit", who, at, letter)

        await self._apart(edit(), f"edit {at}")

    async def end(self) -> None:
        """Begin no further change, and wait for those of one letter each that are under way."""
        self._ending.set()
        if self.under_way:
            await asyncio.wait(self.under_way)

    def _check(self, partition: Partition) -> None:
        if partition not in self.partitions:
            raise NoLetter(f"there is no partition {partition[:80]!r}", "take an address from the list of letters")

    async def _all(self, after: Address | None = None) -> AsyncGenerator[Found]:
        partitions, last = self.partitions, "-"
        if after is not None:
            self._check(after.partition)
            partitions, last = partitions[partitions.index(after.partition) :], after.id
        for partition in partitions:
            while page := await self._log.dead(partition, last, limits.LOG_PAGE):
                for last, letter in page:
                    yield Address(partition, last), letter
                if len(page) < limits.LOG_PAGE:
                    break
            last = "-"

    async def _publish(self, at: Address, letter: DeadLetter, data: bytes, type: str) -> bool:
        """Append the message ``letter`` with ``data``, then forget the letter; returns whether it was still there.

        Raises :class:`StillRefused`. An end between the two leaves the letter: a second replay has the same id.
        """
        topic = self._map.resolve(letter.topic) or letter.topic
        arrived = Arrived(topic, data, content_type=type, properties=tuple(letter.meta.headers.items()))
        judged = self._ingest.judge(arrived, letter.id or str(at), time.time_ns() // 1_000_000)
        if isinstance(judged, Rejected):
            raise StillRefused(f"{at} is refused again: {judged.error}", "see: gateway dead edit --help")
        if judged.ephemeral:
            await self._log.publish_live(judged.partition, judged.draft.event)
        else:
            (answer,) = await self._log.append(judged.partition, [judged.draft])
            if isinstance(answer, GatewayError):
                raise answer
        return bool(await self._log.drop_dead(at.partition, [at.id]))

    async def _each(
        self, verb: str, who: str, places: Iterable[Address], change: Change, rate: float
    ) -> AsyncGenerator[Progress]:
        progress = Progress(0, 0)
        clock = asyncio.get_running_loop().time
        began = clock()
        for count, at in enumerate(places):
            if rate and (when := began + count / rate) > clock():
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(when):
                        await self._ending.wait()
            if self._ending.is_set():
                raise Unavailable("this process is going down", "ask another one for the rest")
            changed, why = await self._apart(self._one(verb, who, at, change), f"{verb} {at}")
            progress = Progress(progress.done + changed, progress.left_out + (not changed), why or progress.why)
            yield progress

    async def _one(self, verb: str, who: str, at: Address, change: Change) -> tuple[bool, str]:
        try:
            letter = await self.read(at)
            changed = await change(at, letter)
        except (NoLetter, StillRefused) as error:
            return False, str(error)
        if not changed:
            return False, f"{at} is gone, or {letter.group or 'nobody'} does not take it back"
        self._said(verb, who, at, letter)
        return True, ""

    async def _apart(self, work: Coroutine[object, object, T], name: str) -> T:
        async def alone() -> T:
            # Two who publish one message at once would both find its letter there.
            async with self._one_by_one:
                return await work

        # A letter between its append and its removal, or without its line in the audit log, would be a half change.
        task = asyncio.create_task(alone(), name=name)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return await asyncio.shield(task)

    def _said(self, verb: str, who: str, at: Address, letter: DeadLetter) -> None:
        _audit.info("%s: %s %s of %s, %s %s", who, verb, at, letter.group or "no group", letter.reason, letter.id)


def address(text: str) -> Address:
    """Read ``PARTITION/ID``; raises :class:`Refused`."""
    partition, _, id = text.partition("/")
    numbers = _ID.fullmatch(id)
    if not partition or numbers is None or max(int(numbers[1]), int(numbers[2])) >= 2**64:
        raise Refused(f"{text[:80]!r} is no dead letter", "write PARTITION/ID, as the list of letters shows it")
    return Address(partition, f"{int(numbers[1])}-{int(numbers[2])}")
