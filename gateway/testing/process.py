"""A service as a test runs it: what is one process elsewhere, stopped, killed and begun again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from gateway import limits
from gateway.adapters.http_asking import Asking
from gateway.adapters.http_problem import problem
from gateway.adapters.http_service import Hosted, application
from gateway.adapters.log import GroupState, Log
from gateway.adapters.tokens import Verifier
from gateway.core.declared import Declared
from gateway.core.delivery import Later, Verdict
from gateway.core.event import Partition
from gateway.core.lanes import Item
from gateway.errors import NotAvailable, Unavailable
from gateway.service import Service
from gateway.store import Store
from gateway.testing.told import error_line
from gateway.worker import Worker
from gateway.worker.holding import Holding

_logger = logging.getLogger("gateway.testing")


class Process:
    """A worker of a service, its own connection to the log, and its routes. Its database outlives it."""

    def __init__(
        self,
        group: str,
        service: Service,
        declared: Declared,
        open_log: Callable[[], Awaitable[Log]],
        failures: deque[str],
        asking: Asking,
    ) -> None:
        """``failures``: where what its handlers raise is told. ``asking``: its way to the others' routes."""
        self.group, self.service = group, service
        self.store: Store | None = None
        self.hosted = Hosted(group)
        self.up = False
        self.worker: Worker
        self._declared, self._open_log, self._failures, self._asking = declared, open_log, failures, asking
        self._partitions: tuple[Partition, ...] = service.partitions(declared)
        self._verifier: Verifier | None = None

    async def begin(self, tasks: asyncio.TaskGroup) -> None:
        log = await self._open_log()
        # By the same name again, so that the outbox has its leader at once.
        self.worker = Worker(
            log,
            self._declared,
            self.group,
            self.service,
            name=self.group,
            lease=limits.TEST_LEASE,
            beat=limits.TEST_BEAT,
            store=self.store,
            asking=self._asking,
        )
        self.worker.holding = _telling(self.group, self._failures)
        self._stop = asyncio.Event()
        self._running = tasks.create_task(self._run(self.worker, self._stop), name=f"service {self.group}")
        self.up = True
        if self._verifier is not None:
            self.serve(self._verifier)

    async def _run(self, worker: Worker, stop: asyncio.Event) -> None:
        try:
            await worker.run(stop)
        finally:
            await worker.log.close()

    async def end(self, *, killed: bool) -> None:
        """Stop as by SIGTERM; or at once, without a word to the log."""
        self.up = False
        if self._verifier is not None:
            self.hosted.open(problem(Unavailable(f"{self.group} is away", "ask again")), lambda status, seconds: None)
        self._stop.set()
        if killed:
            self._running.cancel()
        await asyncio.wait([self._running])

    async def ready(self) -> bool:
        """Say whether it holds all its partitions: a new service that begins with the latest event misses none."""
        return not self.worker.unready() and len(self.worker.holdings) == len(self._partitions)

    def serve(self, verifier: Verifier) -> None:
        """Answer requests to its routes, after each begin."""
        self._verifier = verifier
        if not self.up:
            return
        app = application(self.service, self.group, verifier, {"service": self.worker.routed})
        self.hosted.open(app, self.worker.metrics.answered)

    async def states(self) -> list[GroupState] | None:
        """How far it is; None where it has not begun everywhere."""
        try:
            return [await self.worker.log.groups.ask(place, self.group) for place in self._partitions]
        except NotAvailable:
            return None

    async def state(self) -> str:
        """How far it is, in words."""
        if not self.up:
            return f"{self.group} is away"
        said = [f"it is not ready: {why}" for why in self.worker.unready()]
        if keys := [item.key for holding in self.worker.holdings.values() for item in holding.out.values()]:
            said.append(f"handlers run for key {', '.join(keys[: limits.TEST_LINES])}")
        states = await self.states()
        if states is None:
            said.append("it has not begun everywhere")
        for state in states or ():
            if state.paused:
                said.append(f"it is paused in {state.partition}")
            elif state.lag or state.parked:
                said.append(f"in {state.partition} {state.lag} events behind, {state.parked} wait for another try")
        if self.store is not None and (rows := (await self.store.due(limits.TEST_LINES))[0]):
            said.append(f"in its outbox wait {', '.join(row.event.topic for row in rows)}")
        return f"{self.group}: {'; '.join(said) or 'has handled all there is'}"


def _telling(group: str, failures: deque[str]) -> type[Holding]:
    class Telling(Holding):
        """A holding that shows what handlers raise at each delivery, not only at the last."""

        def finish(self, item: Item, verdict: Verdict, error: BaseException | None = None) -> None:
            if error is not None and not isinstance(error, Later):
                record = self._records.get(item.offset)
                what = f"{group} on {record.event.topic if record else 'an event'}, delivery {item.attempts + 1}"
                _logger.warning("%s", what, exc_info=error)
                failures.append(f"{what}: {error_line(error)}")
            super().finish(item, verdict, error)

    return Telling
