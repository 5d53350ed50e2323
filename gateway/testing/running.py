"""A running gateway as a test sees it: published to, waited for by facts, asked what became of things."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import httpx
import msgspec

from gateway import limits
from gateway.adapters.http_asking import Asking
from gateway.adapters.log import AppLog, DeadLetter, Log, Tail
from gateway.adapters.tokens import KeyRing, issue
from gateway.app import App, declare, promises, services
from gateway.core.access import KINDS, Principal
from gateway.core.declared import Declared, Found
from gateway.core.event import Event, Publication
from gateway.core.topic import matches
from gateway.edge.publisher import Publisher
from gateway.errors import Misconfigured, Refused, Unavailable
from gateway.letters import Letters, Which
from gateway.service import Service
from gateway.settings import Settings
from gateway.store import Transaction
from gateway.testing.log_server import SERVER
from gateway.testing.origin import SERVICES, origin
from gateway.testing.process import Process
from gateway.testing.told import DidNotHappen, event_line, letter_line, listed

_logger = logging.getLogger("gateway.testing")
T = TypeVar("T")


class Seen(Event, frozen=True, gc=False):
    """An event that came while the test ran."""

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """Return the payload, decoded to ``type``: anything that msgspec decodes; raises its errors."""
        return msgspec.json.decode(self.data, type=type)


@asynccontextmanager
async def running(*apps: App, edge: bool = False, databases: Mapping[str, str] | None = None) -> AsyncIterator[Gateway]:
    """Run ``apps`` on an empty log: a real log server, and a worker of each service, in this process and loop.

    The log server is an embedded Valkey, started by the first test and ended with the process; each gateway has a
    database of it to itself, so several run beside each other. Services keep what they keep in an SQLite file of a
    temporary folder, or where ``databases`` says: ``{"shop.stock": "postgresql://…"}``, an empty one. ``edge``: with
    HTTP, WebSocket, SSE and the services' routes, on a free port of loopback; tokens of applications that issue some
    are good there.

    Yields once every service handles. At the end, however it ends, everything stops as if it was killed, and is
    removed. Raises :class:`Misconfigured` where the apps contradict themselves, and :class:`ServerMissing`.
    """
    gateway = Gateway(apps, edge, databases or {})
    ready, stop = asyncio.Event(), asyncio.Event()
    # A task of its own: a fixture may begin and end in different tasks, which no TaskGroup may.
    gateway._life = life = asyncio.create_task(gateway._live(ready, stop), name="gateway of a test")
    waiting = asyncio.create_task(ready.wait(), name="ready")
    try:
        try:
            await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        gateway._check()
        yield gateway
    except BaseException:
        # What the test raised is told, and not what this may have led to.
        await _over(life, stop, cut=not ready.is_set())
        raise
    await _over(life, stop)
    gateway._check()


async def _over(life: asyncio.Task[None], stop: asyncio.Event, *, cut: bool = False) -> None:
    stop.set()
    if cut:
        life.cancel()
    # Cancelled here, this cancels what it waits for, and still waits for its end.
    await asyncio.gather(life, return_exceptions=True)


class Gateway:
    """A running gateway, as a test sees it; made by :func:`running`.

    ``within`` is a guard against hanging, in seconds, and no promise about speed. What ends the gateway is raised by
    whatever is asked next.
    """

    def __init__(self, apps: Sequence[App], edge: bool, databases: Mapping[str, str]) -> None:
        """Use `running`."""
        self._declared = declared = Declared(declare(Settings(), apps).topics, limits.TEST_PARTITIONS)
        self._failures: deque[str] = deque(maxlen=limits.TEST_LETTERS)
        self._apps = apps
        self._processes = {
            group: Process(group, service, declared, self._open_log, self._failures, self._asking(group, service))
            for group, service in services(declared, apps).items()
        }
        for group in databases:
            self._process(group)
        self._databases = databases
        # There is no replica here: what waits for one elsewhere waits for the disk.
        self._logs = tuple(
            AppLog(p.app, "disk" if p.durability == "replica" else p.durability, p.retention, p.keep)
            for p in promises(Settings(), declared, apps)
        )
        self._secret = secrets.token_hex(32).encode()
        self._seen: deque[Seen] = deque(maxlen=limits.TEST_EVENTS)
        self._tails: dict[str, Tail] = {}
        self._edge, self._url = edge, ""
        self._life: asyncio.Task[None]

    # --- what a test does ---

    async def publish(
        self, topic: str, payload: object, *, by: str = "", id: str = "", headers: Mapping[str, str] | None = None
    ) -> str:
        """Publish ``payload`` and return the event's id: bytes as they are, anything else as msgspec makes JSON of it.

        ``by``: as a principal such as ``user:ann`` or ``device:pump-7``, with its rights; without, past every right.
        Raises what every door raises: :class:`NotDeclared`, :class:`BadPayload`, :class:`Denied`, ….
        """
        self._check()
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        if isinstance(payload, str) and self._declared.find(topic).topic.payload == "text":
            data = payload.encode()
        asked = Publication(topic, data, "service", id=id, headers=dict(headers or {}))
        who, declared = (principal(by), self._declared) if by else (Principal(), _Unrestricted(self._declared.topics))
        return (await Publisher(declared, self._log).publish(who, asked)).id

    async def event(self, filter: str, *, within: float = 10.0) -> Seen:
        """Return the first event under ``filter`` since the start, or the first that comes.

        Raises :class:`DidNotHappen`; and :class:`NotDeclared` at once, where no topic can ever meet it.
        """
        __tracebackhide__ = True
        return (await self.events(filter, 1, within=within))[0]

    async def events(self, filter: str, count: int = 0, *, within: float = 10.0) -> list[Seen]:
        """Return all events under ``filter`` since the start, once there are ``count``; raises as `event`.

        Those of one key are in their order. After `at_rest` no service emits more.
        """
        __tracebackhide__ = True
        self._declared.meeting(filter)

        async def come() -> bool:
            return len(self._under(filter)) >= count

        what = f"{len(self._under(filter))} of {count} events" if count > 1 else "no event"
        await self._until(come, within, f"{what} under {filter!r} came", filter)
        return self._under(filter)

    async def at_rest(self, *, within: float = 30.0) -> None:
        """Return once every service has handled all there is, nothing waits for another try, and outboxes are empty.

        Services that are `away` do not count, nor what `Context.later` delays. Raises :class:`DidNotHappen`.
        """
        __tracebackhide__ = True
        await self._until(self._rests, within, "the services did not come to rest")

    async def dead_letters(self) -> list[DeadLetter]:
        """Return what was given up, with its reason, its error and the traceback."""
        self._check()
        return [letter async for _, letter in Letters(self._log, self._declared).find(Which(), limits.TEST_LETTERS)]

    def database(self, service: str) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction in the database of ``service`` (``shop.stock``): to prepare it, or to look.

        It commits when the block is left, with what the block emits as that service. On SQLite the service waits for
        it meanwhile: wait for nothing inside.
        """
        self._check()
        return self._process(service).worker.routed.transaction()

    def token(self, by: str) -> str:
        """Return a token for ``user:``, ``viewer:``, ``operator:`` or ``service:NAME`` that lasts an hour."""
        who = principal(by)
        kid = SERVICES if who.kind == "service" else ""
        return issue(self._secret, who, 3600, time.time(), kid=kid)

    def client(self, by: str = "") -> httpx.AsyncClient:
        """Return an HTTP client of `url`, as whom `token` takes or as nobody; use ``async with``."""
        headers = {"authorization": f"Bearer {self.token(by)}"} if by else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=limits.DELIVERY_WITHIN, trust_env=False)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` of the edge; its WebSocket is at ``/connection/websocket`` there."""
        self._check()
        if not self._edge:
            raise Misconfigured("this gateway has no edge", "running(app, edge=True)")
        return self._url

    @asynccontextmanager
    async def away(self, service: str, *, killed: bool = False) -> AsyncIterator[None]:
        """``service`` (``shop.stock``) is down inside the block: stopped, or ``killed`` with what it had in hand.

        Afterwards it is back, and catches up. A stop lets handlers end, within ``limits.GRACE``; a kill cancels them,
        undoes their transactions, and what they had in hand comes again, one by one.
        """
        __tracebackhide__ = True
        self._check()
        process = self._process(service)
        await process.end(killed=killed)
        yield
        self._check()
        await process.begin(self._tasks)
        await self._until(process.ready, limits.TEST_READY_WITHIN, f"{service} did not come back")

    # --- its life ---

    async def _live(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Start: folder, log, databases, tails, services, edge. End: the reverse."""
        async with AsyncExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="gateway-test-")))
            self._log_url = await ends.enter_async_context(SERVER.database())
            for group, process in self._processes.items():
                if (database := process.service.database) is not None:
                    url = self._databases.get(group) or f"sqlite:///{folder / group}.db"
                    process.store = await database.open(url)
                    ends.push_async_callback(process.store.close)
            self._log = await self._open_log()
            ends.push_async_callback(self._log.close)
            async with asyncio.TaskGroup() as self._tasks:
                ours = [self._tasks.create_task(self._log.run(), name="log of the test")]
                for partition in self._log.partitions():
                    tail = self._tails[partition] = self._log.tail(partition)
                    await tail.start(0)
                    ours.append(self._tasks.create_task(self._watch(tail), name=f"watch {partition}"))
                await self._serve(ready, stop, folder)
                for process in self._processes.values():
                    await process.end(killed=True)
                for task in ours:
                    task.cancel()

    async def _serve(self, ready: asyncio.Event, stop: asyncio.Event, folder: Path) -> None:
        ring: KeyRing | None = None
        async with AsyncExitStack() as ends:
            if self._edge:
                log = await self._open_log()
                routed = [process for process in self._processes.values() if process.service.routes]
                opened = origin(log, self._declared, routed, self._apps, self._secret, folder)
                # Before the services: from their first event on they know where the others are.
                self._url, ring = await ends.enter_async_context(opened)
            for process in self._processes.values():
                await process.begin(self._tasks)
            for process in self._processes.values():
                await self._until(process.ready, limits.TEST_READY_WITHIN, f"{process.group} did not begin")
            for one in ring.sets if ring is not None else ():
                await one.fetch()
            ready.set()
            await stop.wait()

    def _asking(self, group: str, service: Service) -> Asking:
        return Asking(group, service.asks, lambda: self.url, lambda: self.token(f"service:{group}"))

    async def _open_log(self) -> Log:
        return await Log.open(self._log_url, self._logs, partitions=limits.TEST_PARTITIONS)

    async def _watch(self, tail: Tail) -> None:
        async for batch in tail:
            if batch.lost:
                _logger.warning("events were trimmed before the test saw them")
            for event in [*(record.event for record in batch.records), *batch.live]:
                self._seen.append(Seen(event.topic, event.data, event.id, event.meta))

    def _check(self) -> None:
        """Raise what ended this gateway."""
        if self._life.done():
            error = None if self._life.cancelled() else self._life.exception()
            while isinstance(error, BaseExceptionGroup):  # the first: services that end together have one cause
                error = error.exceptions[0]
            if error is not None:
                raise error

    def _process(self, group: str) -> Process:
        if group not in self._processes:
            known = ", ".join(sorted(self._processes)) or "none"
            raise Misconfigured(f"there is no service {group!r}", f"there are: {known}")
        return self._processes[group]

    # --- facts ---

    def _under(self, filter: str) -> list[Seen]:
        return [event for event in self._seen if matches(filter, event.topic)]

    async def _rests(self) -> bool:
        # Groups that stand where they stood before, at the end, handled nothing meanwhile: an outbox that was empty
        # between the two looks is empty.
        before = await self._standing()
        if before is None:
            return False
        for process in self._processes.values():
            if process.up and process.store is not None and (await process.store.due(1))[0]:
                return False
        for partition, tail in self._tails.items():
            newest = await self._log.recent_deliveries(partition, 1)
            if newest and newest[-1].offset > tail.position.offset:
                return False  # the test has not seen it yet
        return before == await self._standing()

    async def _standing(self) -> list[int] | None:
        """Where each group stands, if all of them stand at the end."""
        found: list[int] = []
        for process in self._processes.values():
            states = await process.states() if process.up else []
            if states is None or any(state.lag or state.parked for state in states):
                return None
            found += [state.cursor for state in states]
        return found

    async def _until(self, met: Callable[[], Awaitable[bool]], within: float, what: str, filter: str = "") -> None:
        """Wait for a fact. The one place that polls: what is asked is in several servers."""
        __tracebackhide__ = True
        clock = asyncio.get_running_loop().time
        give_up = clock() + within
        while not await met():
            self._check()
            if clock() > give_up:
                raise DidNotHappen(await self._told(f"{what} within {within:g} s", filter))
            await asyncio.sleep(limits.TEST_LOOK_EVERY)

    async def _told(self, what: str, filter: str) -> str:
        near = [found.topic for found in self._declared.meeting(filter)] if filter else []
        came, elsewhere = list[str](), list[str]()
        for one in self._seen:
            under = any(matches(topic.filter, one.topic) for topic in near)
            (came if under else elsewhere).append(event_line(one.topic, one.data))
        lines = [what]
        if near:
            lines += listed(f"came under {', '.join(topic.pattern for topic in near)}", came)
        lines += listed("came elsewhere" if near else "came", elsewhere)
        try:
            lines += listed("dead letters", [letter_line(letter) for letter in await self.dead_letters()])
            states = [await process.state() for process in self._processes.values()]
        except Unavailable as error:
            states = [f"the log server is away: {error}"]
        return "\n".join([*lines, *listed("raised by handlers", list(self._failures)), *listed("services", states)])


class _Unrestricted(Declared):
    """The same topics, to somebody who may publish everything."""

    def __init__(self, topics: Sequence[Any]) -> None:
        super().__init__(topics, limits.TEST_PARTITIONS)

    def writable(self, who: Principal, name: str) -> Found:
        return self.find(name)


def principal(text: str) -> Principal:
    """Read ``KIND:NAME``; raises :class:`Refused`."""
    kind, _, name = text.partition(":")
    if kind not in KINDS or not name:
        raise Refused(f"{text!r} is no principal", f"write {', '.join(f'{one}:NAME' for one in KINDS)}")
    return Principal(kind, name)
