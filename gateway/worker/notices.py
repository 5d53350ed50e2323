"""Notices: the operators of an application hear that one of its services gave something up."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log
from gateway.core.declared import Declared, valid
from gateway.core.delivery import emitted_id
from gateway.core.event import Draft, Event, Meta
from gateway.core.topic import matches
from gateway.errors import GatewayError, KeyReused, Refused
from gateway.service import Service
from gateway.worker.emitted import TYPES

_logger = logging.getLogger("gateway.worker")


class Notice(msgspec.Struct, frozen=True):
    """The payload of ``APP/letters``: which event was given up, and not a word of what was in it."""

    service: str
    #: Of the event.
    id: str
    topic: str
    reason: str
    #: Milliseconds since 1970.
    at: int
    #: Letters before this one that were not told, because there were too many.
    more: int


class Notices:
    """What one worker tells of the dead letters of its service, on ``APP/letters`` where the application declares it.

    A service that listens there is not told of its own: a letter about a letter would have no end.
    """

    def __init__(self, log: Log, declared: Declared, group: str, service: Service) -> None:
        self._log, self._declared, self._group = log, declared, group
        self.topic = f"{group.partition('.')[0]}/letters"
        self._deaf = any(matches(one.topic.filter, self.topic) for one in service.reactions)
        self._told: deque[float] = deque(maxlen=limits.NOTICES)
        self._more = 0

    async def tell(self, letters: Sequence[DeadLetter]) -> None:
        """Tell of ``letters`` before they are buried: where this process ends in between, once more by the same id.

        A log that does not take it is no reason to keep the letter: that is logged, and the letter says the same.
        """
        try:
            found = self._declared.find(self.topic)
        except Refused:
            return
        if self._deaf or found.topic.ephemeral:
            return
        for letter in letters:
            now = asyncio.get_running_loop().time()
            if len(self._told) == limits.NOTICES and now - self._told[0] < limits.NOTICES_WITHIN:
                self._more += 1
                continue
            self._told.append(now)
            says = Notice(self._group, letter.id, letter.topic, letter.reason, letter.ts, self._more)
            self._more = 0
            meta = Meta(
                ts=letter.ts,
                type=TYPES[found.topic.payload],
                producer=f"service:{self._group}",
                via="service",
                cause=letter.id,
            )
            # A number that no event has which the delivery emits, nor its answer.
            id = emitted_id(letter.id, self._group, limits.EMITS + 2)
            try:
                data = valid(found.topic, msgspec.json.encode(says))
                draft = Draft(Event(self.topic, data, id, meta), found.key, retain=found.topic.retain)
                (answer,) = await self._log.append(found.partition, [draft])  # not patiently: the lease waits for this
                if isinstance(answer, GatewayError):
                    raise answer
            except KeyReused:
                continue  # it was told before: by who died then, or before it was replayed
            except GatewayError as error:
                _logger.warning("%s: nobody was told of the dead letter %s: %s", self._group, letter.id, error)
                self._more += says.more + 1
