"""Dead letters as an operator handles them: found, read, given back to their service, edited, dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log
from gateway.core.declared import Declared, valid
from gateway.core.event import Partition
from gateway.core.topic import matches
from gateway.errors import NotAvailable, Refused

_audit = logging.getLogger("gateway.audit")


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
    #: Gone meanwhile, or of no group.
    left_out: int


Found = tuple[Address, DeadLetter]
Change = Callable[[Address, DeadLetter], Awaitable[bool]]
Tell = Callable[[Progress], None]


class Letters:
    """The dead letters of ``partitions``. Each change is written to the log ``gateway.audit``, with ``who`` asked."""

    def __init__(self, log: Log, declared: Declared, partitions: Sequence[Partition], who: str) -> None:
        self._log = log
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

        Raises :class:`LimitReached` where too many wait already; what came before is done.
        """

        async def give(at: Address, letter: DeadLetter) -> bool:
            return bool(letter.group and await self._log.groups.replay(at.partition, letter.group, [at.id]))

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
            raise Refused(f"{at} belongs to no service", "publish it again instead")
        data = valid(self._declared.find(letter.topic).topic, data)
        if not await self._log.groups.replay(at.partition, letter.group, [at.id], data):
            raise NotAvailable(f"{at} is gone", "see: gateway dead ls")
        self._said("edit", at, letter)

    async def _each(self, verb: str, found: Sequence[Found], change: Change, rate: float, told: Tell) -> Progress:
        progress = Progress(0, 0)
        clock = asyncio.get_running_loop().time
        began = clock()
        for count, (at, letter) in enumerate(found):
            if rate and (early := began + count / rate - clock()) > 0:
                await asyncio.sleep(early)
            if await change(at, letter):
                progress = Progress(progress.done + 1, progress.left_out)
                self._said(verb, at, letter)
            else:
                progress = Progress(progress.done, progress.left_out + 1)
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
