"""What the clients of one edge share: the log, the declarations, fan-out, readers, and who may come in."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Mapping
from importlib.metadata import version
from typing import Any

from gateway import limits
from gateway.adapters.log import Log
from gateway.adapters.metrics import EdgeMetrics
from gateway.adapters.tokens import Grant, Permit, Verifier
from gateway.core.access import ANONYMOUS
from gateway.core.census import Census
from gateway.core.declared import Declared, Found
from gateway.core.event import Partition, Position, Record
from gateway.core.fanout import Fanout
from gateway.core.rate import UNBOUNDED, Rate
from gateway.core.topic import matches
from gateway.edge.denials import Denials
from gateway.edge.places import Places
from gateway.edge.presence import Presence
from gateway.edge.publisher import Publisher
from gateway.edge.readers import Readers
from gateway.edge.requests import Requests
from gateway.edge.revocations import Good, Revocations
from gateway.errors import BadToken, Denied, GatewayError

_log = logging.getLogger("gateway.edge")
_audit = logging.getLogger("gateway.audit")


class Shared:
    """It holds nothing that another edge, or a new one, could not read from the log."""

    def __init__(
        self,
        log: Log,
        declared: Declared,
        verifier: Verifier,
        *,
        anonymous: bool = False,
        rate: Rate = UNBOUNDED,
        connections_per_user: int = 0,
    ) -> None:
        self.log = log
        #: Of the commands of each WebSocket client.
        self.rate = rate
        self.places = Places(connections_per_user)
        self.declared = declared
        self.fanout = Fanout()
        self.census = Census()
        self.metrics_of = EdgeMetrics(log.counters)
        self.publisher = Publisher(declared, log, self.metrics_of.stored)
        self.requests = Requests(self.publisher, log, self.spawn)
        self.presence = Presence(log.presence, declared, self._unlisted)
        late = self.metrics_of.latency.observe
        self.readers = Readers(log, declared, self.fanout, late, self.spawn, self.presence.hear)
        self.version = version("topic-gateway")
        self.revocations = Revocations(log.control, verifier, self.send_away, self.now)
        self._verifier = verifier
        self._anonymous = anonymous
        self._tasks: set[asyncio.Task[Any]] = set()
        self._denials = Denials()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def name(self) -> str:
        """As operators are shown it."""
        return f"edge-{self.presence.edge[-8:]}"

    def now(self) -> float:
        return time.time()

    def random(self) -> float:
        return random.random()  # noqa: S311 - spreads pings over time; nothing secret hangs on it

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task of this edge. An error in our own code is logged and counted, and ends that task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.metrics_of.failures.inc()
            _log.error("task %s failed", task.get_name(), exc_info=error)

    async def last_values(self, met: list[Found], filter: str, start: Mapping[Partition, Position]) -> list[Record]:
        """Return the last values that ``filter`` lets through; their publications move no position.

        A value newer than ``start`` is left out: it comes, or came, to whoever reads on from there.
        """
        values: list[Record] = []
        for found in met:
            if not found.topic.retain:
                continue
            for partition in sorted(self.declared.places([found])):
                topics = [filter] if found.key and filter == found.key else None
                for record in await self.log.last(partition, topics, limits.LAST_VALUES - len(values)):
                    if record.offset > start[partition].offset:
                        continue
                    if matches(filter, record.event.topic) and matches(found.topic.filter, record.event.topic):
                        record.offset = 0
                        values.append(record)
        return values

    def admit(self, token: str) -> Grant:
        """Return who ``token`` names; raises :class:`BadToken` or :class:`TokenExpired`.

        Raises :class:`Unavailable` while it is not known whether it was revoked, or its key is being looked up.
        """
        if token:
            grant = self._verifier.verify(token, self.now())
            self.revocations.check(grant)
            return grant
        if not self._anonymous:
            raise BadToken("a token is needed", "make one with `gateway token`, or set edge.anonymous = true")
        return Grant(ANONYMOUS, None)

    def admit_subscription(self, token: str) -> Permit:
        """Return what a subscription token permits; raises as :meth:`admit`."""
        permit = self._verifier.verify_subscription(token, self.now())
        self.revocations.check(permit.grant)
        return permit

    def send_away(self, good: Good) -> int:
        """Close every connection whose grant is not good any more; return how many."""
        raise NotImplementedError

    def _unlisted(self, count: int) -> None:
        if count:
            _log.warning(
                "%d clients watch and are not listed: presence knows %d of a topic", count, limits.PRESENCE_MOST
            )

    def refused(self, error: GatewayError) -> None:
        """Count a request that is answered with ``error``; the audit log hears of what a declaration denied."""
        self.metrics_of.refused.labels(error.code).inc()
        if not isinstance(error, Denied) or not error.who:
            return
        if (untold := self._denials.tell(error.who, self.now())) is not None:
            _audit.warning("%s%s", error.detail, f", after {untold} more untold" if untold else "")

    async def end(self) -> None:
        """Cancel every task, readers among them, and wait for their end."""
        self.readers.ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
