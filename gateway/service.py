"""What a service is: a name, and which of its functions wants which topics, as plain data."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

import msgspec

from gateway import limits
from gateway.core.declared import Declared, Found, Topic
from gateway.core.delivery import Retry
from gateway.core.event import Event, Partition
from gateway.core.topic import matches, overlap
from gateway.errors import GatewayError, Misconfigured, NotDeclared
from gateway.store import Database, Transaction

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

#: Asynchronous, of the payload and its context; of a list of each, where it takes batches.
Call = Callable[..., Awaitable[object]]
F = TypeVar("F", bound=Call)

#: Where a group begins that was never there before.
Start = Literal["earliest", "latest"]

_RETRY: Final = Retry()
#: First levels of the edge's own paths: no application with routes may be called so.
_TAKEN: Final = ("api", "connection", "dead", "livez", "metrics", "readyz", "topics")


class Context(Protocol):
    """One delivery of one event, as its handler sees it."""

    #: As it stands in the log.
    event: Event
    #: What the pattern's variables are in this event's topic: ``{"order": "7"}``.
    variables: Mapping[str, str]
    #: Counted from 1; a worker that died over it does not count.
    attempt: int

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """Publish ``payload`` under ``topic`` once the handler has returned, and return the new event's id.

        Bytes are taken as they are; anything else becomes JSON. Emitted in this order, at least once, before this
        event counts as done; nothing is emitted where the handler raises. The id follows from the event, the service
        and the number of this call: a second delivery emits the same ids again, and readers drop the double. Where the
        handler has called `transaction`, what it emits is part of that; else it is **not** one transaction with what
        the handler did elsewhere.

        Raises :class:`Misconfigured` where the service does not declare that it emits this, :class:`NotDeclared`,
        :class:`BadPayload`, and :class:`LimitReached` beyond ``limits.EMITS`` events.
        """

    async def transaction(self) -> Transaction:
        """Begin the transaction of this delivery, and return it; a second call returns the same.

        It is committed once the handler has returned, and undone where it raises: what was done in it, what is emitted
        (before or after this call), the reply, and the note that this event was handled, all of it or nothing. An
        event that was handled before ends the handler here, as done. So: ask the outside world first, begin last; on
        SQLite, others wait for their turn until the handler returns.

        Raises :class:`Misconfigured` where the service has no database, :class:`Unavailable` where it is away: that
        is no failure of the event, which comes again.
        """

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """As `emit`, ``after`` seconds from now: a deadline, a reminder. It survives restarts; only in a transaction.

        The service declares such topics as ``delays``, and may listen to them itself. Nothing takes it back: when it
        comes, see whether it still matters.
        """


class Reaction(msgspec.Struct, frozen=True):
    """Which events one function of a service wants, and how patient the service is with it."""

    #: A topic filter whose wildcard levels may have names.
    topic: Topic
    call: Call
    retry: Retry = _RETRY
    #: Seconds for one delivery. → it is cancelled, which is a failure
    timeout: float = limits.DELIVERY_WITHIN
    #: Events of one call, each of another key; 0: the function takes one event, not a list.
    batch: int = 0
    #: Age in seconds from which an event is not handled any more, reason ``expired``; 0: none is too old.
    expires: float = 0.0
    #: Nobody may declare its topic: then it hears nothing.
    optional: bool = False

    @property
    def name(self) -> str:
        return f"{self.call.__module__}.{self.call.__qualname__}"

    def met(self, declared: Declared) -> list[Found]:
        """Return the declarations that it meets; raises :class:`NotDeclared` where it has to meet one."""
        try:
            return declared.meeting(self.topic.filter)
        except NotDeclared:
            if self.optional:
                return []
            raise

    def payload(self) -> Any:
        """Return the type its first parameter is annotated with; raises :class:`Misconfigured`.

        Asked when a worker starts, not when the module is imported: by then every name in it exists.
        """
        try:
            hints = typing.get_type_hints(self.call)
        except NameError as error:
            raise Misconfigured(f"{self.name}: {error}", "annotate it with types that its module knows") from None
        first = next(iter(inspect.signature(self.call).parameters))
        kind = hints.get(first, Any)
        if not self.batch or kind is Any:
            return kind
        if typing.get_origin(kind) is not list:
            raise Misconfigured(f"{self.name} takes batches", "annotate its first parameter as list[…]")
        return typing.get_args(kind)[0]


class Service:
    """A service of an application: one group, scaled on its own. A value: nothing happens before a worker runs it.

    ``emits`` are topics or filters of what its handlers may emit. ``concurrency``: deliveries at one time in one
    worker. ``start``: where it begins when it is new: at the oldest kept event, or with what comes from now on.
    ``delays`` are topics or filters of what `Context.later` may send. ``database``: a ``gateway.sql.Database``.
    ``routes``: Starlette's, that its workers serve below ``/APP/SERVICE/``; see ``gateway.web``. ``asks``: other
    services, as ``APP.SERVICE``, whose routes it asks by ``gateway.web.ask``; ``api`` is the gateway's server API.
    """

    def __init__(
        self,
        name: str,
        *,
        emits: Sequence[str] = (),
        delays: Sequence[str] = (),
        database: Database | None = None,
        concurrency: int = limits.CONCURRENCY,
        start: Start = "earliest",
        routes: Sequence[Any] = (),
        asks: Sequence[str] = (),
    ) -> None:
        if not _NAME.fullmatch(name):
            raise Misconfigured(
                f"service {name!r} has no good name", "use a-z, 0-9, - and _, at most 32, a letter first"
            )
        if not 1 <= concurrency <= limits.CONCURRENCY_MOST:
            raise Misconfigured(
                f"service {name!r}: concurrency is {concurrency}", f"use 1 to {limits.CONCURRENCY_MOST}"
            )
        self.name = name
        # A pattern with {variables} is a filter too.
        self.emits = tuple(Topic(pattern=pattern).filter for pattern in emits)
        self.delays = tuple(Topic(pattern=pattern).filter for pattern in delays)
        if delays and database is None:
            raise Misconfigured(f"service {name!r} delays events without a database", "give it a gateway.sql.Database")
        self.database = database
        self.concurrency = concurrency
        self.start = start
        #: Opaque here: `adapters/http_service.py` checks and serves them.
        self.routes = tuple(routes)
        for group in asks:
            if group != "api" and (len(parts := group.split(".")) != 2 or not all(map(_NAME.fullmatch, parts))):
                raise Misconfigured(
                    f"service {name!r} asks {group!r}, which is no service", "write APP.SERVICE, or api"
                )
        self.asks = tuple(asks)
        self._reactions: list[Reaction] = []
        #: Names of the sagas that it runs: each adds its own.
        self.sagas: list[str] = []

    @property
    def reactions(self) -> tuple[Reaction, ...]:
        return tuple(self._reactions)

    def on(
        self,
        pattern: str,
        *,
        retry: Retry = _RETRY,
        timeout: float = limits.DELIVERY_WITHIN,
        batch: int = 0,
        expires: float = 0.0,
        optional: bool = False,
    ) -> Callable[[F], F]:
        """Give the decorated function every event whose topic ``pattern`` lets through, of whatever application.

        ``async def name(payload: Type, context: Context)``: the payload is decoded to ``Type`` (anything msgspec
        decodes from JSON; ``bytes``, ``str``, or ``Event`` for the event itself); one that is not of it is buried at
        once, reason ``schema``. With ``batch`` it takes ``list[Type]`` and ``list[Context]`` of at most so many
        events of different keys; where it raises, each of them is delivered again in a list of its own. ``timeout``
        and ``expires`` in seconds. ``optional``: of an application that may be absent, as nobody else declares its
        topics; then nothing comes.

        The function stays what it is: tests call it. Raises :class:`Misconfigured`.
        """

        def take(call: F) -> F:
            self._add(Reaction(Topic(pattern=pattern), call, retry, timeout, batch, expires, optional))
            return call

        return take

    def _add(self, reaction: Reaction) -> None:
        where = f"{reaction.name} on {reaction.topic.pattern!r}"
        if not inspect.iscoroutinefunction(reaction.call):
            raise Misconfigured(f"{where} is not asynchronous", "write async def")
        if len(inspect.signature(reaction.call).parameters) != 2:
            raise Misconfigured(f"{where} does not take two parameters", "write (payload: Type, context: Context)")
        if not 0 < reaction.timeout <= limits.DELIVERY_MOST:
            raise Misconfigured(f"{where}: timeout is {reaction.timeout} s", f"use 0 to {limits.DELIVERY_MOST:g}")
        if not 0 <= reaction.batch <= limits.BATCH_MOST:
            raise Misconfigured(f"{where}: batch is {reaction.batch}", f"use 1 to {limits.BATCH_MOST}")
        if reaction.expires < 0:
            raise Misconfigured(f"{where}: expires is {reaction.expires} s", "use seconds above 0")
        for other in self._reactions:
            if overlap(other.topic.filter, reaction.topic.filter):
                raise Misconfigured(
                    f"{where} overlaps {other.topic.pattern!r}", "narrow one of them, or write a second service"
                )
        self._reactions.append(reaction)

    def sends_to(self, topic: str, how: Literal["emits", "delays"] = "emits") -> bool:
        """Say whether it declares that it emits, or delays, ``topic``."""
        return any(matches(filter, topic) for filter in getattr(self, how))

    def partitions(self, declared: Declared) -> tuple[Partition, ...]:
        """Return where events that it wants may stand, in order."""
        return tuple(sorted(declared.places(found for one in self._reactions for found in one.met(declared))))


def contradictions(group: str, service: Service, declared: Declared) -> Iterator[str]:
    """Say what keeps ``service`` from running beside these declarations; nothing when all is well."""
    if not service.reactions and not service.routes:
        yield f"service {group!r} handles nothing; decorate a function with @{service.name}.on(…), or give it routes"
    if service.routes and (app := group.partition(".")[0]) in _TAKEN:
        yield f"service {group!r} has routes, but paths below /{app}/ are the gateway's own; rename the application"
    for one in service.reactions:
        where = f"service {group!r}: {one.name} on {one.topic.pattern!r}"
        try:
            met = [found.topic for found in one.met(declared)]
            kind = one.payload()
            if kind is not Event and isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType):
                yield f"{where}: nothing decodes JSON to {kind}; annotate it with what msgspec knows"
        except (GatewayError, TypeError) as error:
            yield f"{where}: {error}"
            continue
        yield from (f"{where}: {topic.pattern!r} is not kept; listen to what is" for topic in met if topic.ephemeral)
        for filter in service.emits:
            if overlap(filter, one.topic.filter):
                yield f"{where}: it also emits {filter!r}, and would hear itself; use another topic for one of them"
    for verb, filters in (("emits", service.emits), ("delays", service.delays)):
        for filter in filters:
            if not any(overlap(filter, topic.filter) for topic in declared):
                yield f"service {group!r} {verb} {filter!r}, which is not declared; declare that topic"
