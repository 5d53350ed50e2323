"""Dead letters as an operator handles them: found, read, given back to their service, edited, dropped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log
from gateway.core.declared import Declared, valid
from gateway.core.event import Partition
from gateway.core.ingest import Arrived, Decode, Ingest, Rejected
from gateway.core.mapping import TopicMap
from gateway.core.topic import matches
from gateway.errors import GatewayError, NotAvailable, Refused

_audit = logging.getLogger("gateway.audit")


class StillRefused(Refused):
    """A message that no declaration lets in, even now."""


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a letter lies: ``shop.3/1763829000000-0``."""

    partition: Partition
    id: str

    def __str__(self) -> str:
        return f"{self.partition}/{self.id}"


class Which(msgspec.Struct, frozen=True):
    """Which letters: all that meet every field; an empty one asks for nothing."""

    group: str = ""
    reason: str = ""
    #: A topic filter.
    topic: str = ""

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
Tell = Callable[[Progress], None]


class Letters:
    """The dead letters of ``partitions``. Each change is written to the log ``gateway.audit``, with ``who`` asked.

    A letter of no group never was in the log: a device's message that was refused. It is judged again by ``topic_map``
    and ``decoders``, and appended by the log, which must run.
    """

    def __init__(
        self,
        log: Log,
        declared: Declared,
        partitions: Sequence[Partition],
        who: str,
        topic_map: TopicMap | None = None,
        decoders: Mapping[str, Decode] | None = None,
    ) -> None:
        self._log = log
        self._map = topic_map or TopicMap(())
        self._ingest = Ingest(declared, decoders or {}, "")
        self._declared = declared
        self._partitions = partitions
        self._who = who

    async def find(self, which: Which, limit: int) -> AsyncIterator[Found]:
        """Yield at most ``limit`` letters, each partition's oldest first."""
        left = limit
        for partition in self._partitions:
            after = "-"
            while page := await self._log.dead(partition, after, limits.LOG_PAGE):
                for id, letter in page:
                    after = id
                    if which.meets(letter):
                        if left <= 0:
                            return
                        left -= 1
                        yield Address(partition, id), letter

    async def read(self, at: Address) -> DeadLetter:
        """Return the letter at ``at``; raises :class:`NotAvailable`."""
        if at.partition not in self._partitions:
            raise NotAvailable(f"there is no partition {at.partition!r}", "see: gateway dead ls")
        letter = await self._log.dead_letter(at.partition, at.id)
        if letter is None:
            raise NotAvailable(f"there is no dead letter {at}", "see: gateway dead ls")
        return letter

    async def replay(self, found: Sequence[Found], rate: float = 0.0, told: Tell = lambda _: None) -> Progress:
        """Give letters back to the group of each, and to no other, with their own id; at most ``rate`` a second.

        A letter of no group is published, if it may be now; otherwise it is left out, with the reason.
        Raises :class:`LimitReached` where too many wait already; what came before is done.
        """

        async def give(at: Address, letter: DeadLetter) -> bool:
            if not letter.group:
                return await self._publish(at, letter, letter.data)
            return bool(await self._log.groups.replay(at.partition, letter.group, [at.id]))

        return await self._each("replay", found, give, rate, told)

    async def drop(self, found: Sequence[Found], rate: float = 0.0, told: Tell = lambda _: None) -> Progress:
        """Forget letters for good."""

        async def drop(at: Address, letter: DeadLetter) -> bool:
            return bool(await self._log.drop_dead(at.partition, [at.id]))

        return await self._each("drop", found, drop, rate, told)

    async def edit(self, at: Address, data: bytes) -> None:
        """Replay the letter at ``at`` with another payload; raises what its topic's declaration refuses."""
        letter = await self.read(at)
        if not letter.group:
            await self._publish(at, letter, data)
            self._said("edit", at, letter)
            return
        data = valid(self._declared.find(letter.topic).topic, data)
        if not await self._log.groups.replay(at.partition, letter.group, [at.id], data):
            raise NotAvailable(f"{at} is gone", "see: gateway dead ls")
        self._said("edit", at, letter)

    async def _publish(self, at: Address, letter: DeadLetter, data: bytes) -> bool:
        """Append the message ``letter`` with ``data``, then forget the letter; returns whether it was still there.

        Raises :class:`StillRefused`. An end between the two leaves the letter: a second replay has the same id.
        """
        topic = self._map.resolve(letter.topic) or letter.topic
        arrived = Arrived(topic, data, content_type=letter.meta.type, properties=tuple(letter.meta.headers.items()))
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

    async def _each(self, verb: str, found: Sequence[Found], change: Change, rate: float, told: Tell) -> Progress:
        progress = Progress(0, 0)
        clock = asyncio.get_running_loop().time
        began = clock()
        for count, (at, letter) in enumerate(found):
            if rate and (early := began + count / rate - clock()) > 0:
                await asyncio.sleep(early)
            try:
                changed, why = await change(at, letter), progress.why
            except StillRefused as error:
                changed, why = False, str(error)
            progress = Progress(progress.done + changed, progress.left_out + (not changed), why)
            if changed:
                self._said(verb, at, letter)
            told(progress)
        return progress

    def _said(self, verb: str, at: Address, letter: DeadLetter) -> None:
        _audit.info("%s: %s %s of %s, %s %s", self._who, verb, at, letter.group or "no group", letter.reason, letter.id)


def address(text: str) -> Address:
    """Read ``PARTITION/ID``; raises :class:`Refused`."""
    partition, _, id = text.partition("/")
    if not partition or not id:
        raise Refused(f"{text!r} is no dead letter", "write PARTITION/ID, as `gateway dead ls` shows it")
    return Address(partition, id)
