"""Sagas of a service: a row each, moved on by the facts that its service hears, in the transaction of each of them."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row, bindparam, delete, func, select, text, update

from gateway import limits
from gateway.adapters.database.tables import SAGAS
from gateway.core.declared import Topic
from gateway.core.delivery import Retry, Undecodable
from gateway.core.event import Event
from gateway.core.saga import Next, Phase, Plan, State, Status, Step, Verb, What, advance, begin, waits_for
from gateway.core.topic import check_name
from gateway.errors import BadTopic, Misconfigured
from gateway.service import Context, Service
from gateway.store import Reading, Transaction

_logger = logging.getLogger("gateway.saga")
T = TypeVar("T")


_OF = re.compile(r"([a-z][a-z0-9_-]{0,31})\.([a-z][a-z0-9_-]{0,31})")
_WHERE = (SAGAS.c.saga == bindparam("s"), SAGAS.c.key == bindparam("k"))
_READ = select(SAGAS).where(*_WHERE)
# SQLite has no such clause and needs none: a transaction of ours is the only one that writes.
_LOCK = _READ.with_for_update()
# Written out, because each dialect of SQLAlchemy has an insert of its own for what both databases spell alike.
_BEGIN = text(
    f"INSERT INTO gateway_saga ({', '.join(SAGAS.c.keys())}) VALUES (:{', :'.join(SAGAS.c.keys())}) "  # noqa: S608 - the names are those of our own columns
    "ON CONFLICT DO NOTHING"
).bindparams(*(bindparam(column.name, type_=column.type) for column in SAGAS.c))
_MOVE = update(SAGAS).where(*_WHERE, SAGAS.c.turn == bindparam("before"))
_MOVE = _MOVE.values(
    {name: bindparam(f"new_{name}") for name in ("phase", "steps", "data", "turn", "tries", "late", "ended")}
)
_COUNT = select(SAGAS.c.phase, func.count()).where(SAGAS.c.saga == bindparam("s")).group_by(SAGAS.c.phase)
_STUCK = select(func.count()).where(
    SAGAS.c.saga == bindparam("s"), SAGAS.c.phase.in_(("finishing", "compensating")), SAGAS.c.tries >= limits.SAGA_STUCK
)
_OLD = select(SAGAS.c.key).where(
    SAGAS.c.saga == bindparam("s"), SAGAS.c.ended < bindparam("past"), SAGAS.c.late.is_(None)
)
_FORGET = delete(SAGAS).where(
    SAGAS.c.saga == bindparam("s"), SAGAS.c.key.in_(_OLD.limit(limits.SAGA_FORGETS).with_for_update(skip_locked=True))
)

_encode = msgspec.json.Encoder().encode
_decode_steps = msgspec.json.Decoder(dict[str, Status]).decode


class _Deadline(msgspec.Struct, frozen=True):
    """What the delayed event of a deadline holds."""

    turn: int


_decode_deadline = msgspec.json.Decoder(_Deadline).decode


class Standing(msgspec.Struct, frozen=True):
    """Where one saga is, for whoever asks. Times in milliseconds since 1970."""

    key: str
    phase: Phase
    steps: Mapping[str, Status]
    #: The step whose answer is waited for; empty once the saga has ended.
    step: str
    #: How often its command was asked again, and whether somebody should look.
    tries: int
    stuck: bool
    data: Any
    started: int
    late: int | None
    ended: int | None


class Saga:
    """What several services do for one key, step by step, and undo where it cannot be completed.

    ``of`` is the service that runs it, ``app.service``; its topics have the variable ``key``. ``data`` is the type of
    what the application keeps with it, as JSON: given to `start`, changed by ``on_fact``, and sent as the payload of
    each command, or ``sends(step, "do" or "undo", data)`` where that is given. Raises :class:`Misconfigured`.
    """

    class Turn(msgspec.Struct, frozen=True):
        """A change of one saga, as the application's functions see it."""

        key: str
        #: What happened, and to which step: ``done``, ``failed``, ``undone``; ``late``, ``cancelled``, ``extended``.
        what: What
        step: str
        #: Where the saga is now.
        phase: Phase
        data: Any
        #: What brought it about; None where the service itself did.
        event: Event | None

        def fact(self, type: type[T]) -> T:
            """Return the payload of the fact; one that is not of ``type`` is buried, reason ``schema``."""
            try:
                return msgspec.json.decode(b"" if self.event is None else self.event.data, type=type)
            except msgspec.MsgspecError as error:
                raise Undecodable(f"not what the saga takes: {error}") from None

    def __init__(
        self,
        name: str,
        *,
        of: str,
        key: str,
        steps: Sequence[Step],
        data: Any = dict[str, Any],
        sends: Callable[[str, Verb, Any], object] | None = None,
    ) -> None:
        self.plan = Plan(name, key, tuple(steps))
        if not (found := _OF.fullmatch(of)):
            raise Misconfigured(f"saga {name!r} is of {of!r}", "name the service that runs it, as app.service")
        self.of, self._service = of, found[2]
        self._deadline = f"{found[1]}/{found[2]}/sagas/{name}/{{{key}}}/late"
        self._decode = msgspec.json.Decoder(data).decode
        self._sends = sends
        self._on_fact: Callable[[Transaction, Saga.Turn], Awaitable[object]] | None = None
        self._on_end: Callable[[Transaction, Saga.Turn], Awaitable[object]] | None = None

    # --- what its service and its application declare ---

    @property
    def emits(self) -> tuple[str, ...]:
        """Its commands, for ``Service(emits=[*saga.emits])``."""
        return self.plan.topics("do", "undo")

    @property
    def delays(self) -> tuple[str, ...]:
        """Its deadlines, for ``Service(delays=[*saga.delays])``."""
        return (self._deadline,)

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The topic of its deadlines, for ``App(topics=[*saga.topics])``; commands and facts are declared as ever."""
        return (Topic(pattern=self._deadline, key=f"{{{self.plan.key}}}"),)

    def run_by(
        self,
        service: Service,
        *,
        on_fact: Callable[[Transaction, Turn], Awaitable[object]] | None = None,
        on_end: Callable[[Transaction, Turn], Awaitable[object]] | None = None,
        retry: Retry | None = None,
    ) -> None:
        """Let ``service`` hear the facts and deadlines; raises :class:`Misconfigured` where it cannot.

        ``on_fact(db, turn)`` is called with each change, before what follows is asked; what it returns is the new data,
        None for the same. ``on_end(db, turn)`` is called once, when it is first completed or compensated. Both are part
        of the transaction: where they raise, nothing has changed, and the event comes again as ``retry`` says.
        """
        where = f"saga {self.plan.name!r} of {self.of!r}"
        if service.name != self._service:
            raise Misconfigured(f"{where} is run by {service.name!r}", "give it of= that service")
        if service.database is None:
            raise Misconfigured(f"{where} has no database", "Service(…, database=Database(…)), of gateway.sql")
        for how, patterns in (("emits", self.emits), ("delays", self.delays)):
            for pattern in patterns:
                if not service.sends_to(self._fill(pattern, "7"), "emits" if how == "emits" else "delays"):
                    raise Misconfigured(
                        f"{where} needs {pattern!r}, which its service does not declare",
                        f"Service(…, {how}=[*saga.{how}])",
                    )
        self._on_fact, self._on_end = on_fact, on_end
        service.sagas.append(self.plan.name)
        again = retry or Retry()
        whats: tuple[What, ...] = ("done", "failed", "undone")
        for step in self.plan.steps:
            for what in whats:
                if pattern := getattr(step, what):
                    service.on(pattern, retry=again)(self._hears(what, step.name))
        service.on(self._deadline, retry=again)(self._hears("late", ""))

    # --- what the application says and asks ---

    async def start(self, db: Transaction, key: str, data: object) -> bool:
        """Begin the saga of ``key`` and ask the first step; False where it was begun before.

        Raises :class:`BadTopic` where ``key`` is no level of a topic, and what ``db.emit`` raises.
        """
        _check(key)
        next, now = begin(self.plan), _now()
        row = self._row(next, self._packed(data), now)
        row |= {"saga": self.plan.name, "key": key, "started": now, "ended": None}
        if not (await db.execute(_BEGIN, row)).rowcount:
            return False
        await db.execute(_FORGET, {"s": self.plan.name, "past": now - int(limits.SAGA_KEPT * 1000)})
        self._ask(db, key, next, data)
        return True

    async def cancel(self, db: Transaction, key: str) -> bool:
        """Turn back: what was done, or may have been, is undone. False where it is too late for that, or was before."""
        return await self._move(db, key, "cancelled")

    async def extend(self, db: Transaction, key: str, within: float) -> bool:
        """Give the step that is waited for ``within`` seconds from now; False where it is being undone, or ended."""
        return await self._move(db, key, "extended", after=within)

    async def state(self, db: Reading, key: str) -> Standing | None:
        """Return where the saga of ``key`` is; None where it was never begun, or ended long ago."""
        row = (await db.execute(_READ, {"s": self.plan.name, "k": key})).first()
        if row is None:
            return None
        state = self._state(row)
        at = waits_for(self.plan, state)
        return Standing(
            key,
            state.phase,
            _decode_steps(row.steps),
            "" if at is None else self.plan.steps[at].name,
            state.tries,
            state.stuck,
            self._decode(row.data),
            row.started,
            row.late,
            row.ended,
        )

    async def count(self, db: Reading) -> dict[str, int]:
        """Return how many sagas are in each phase, and under ``stuck`` for how many somebody should look."""
        name = {"s": self.plan.name}
        phases = {row[0]: int(row[1]) for row in await db.execute(_COUNT, name)}
        return {**phases, "stuck": await db.scalar(_STUCK, name)}

    # --- one change ---

    def _hears(self, what: What, step: str) -> Callable[[Event, Context], Coroutine[Any, Any, None]]:
        async def heard(event: Event, context: Context) -> None:
            turn = _decode_deadline(event.data).turn if what == "late" else -1
            key = context.variables[self.plan.key]
            await self._move(await context.transaction(), key, what, step=step, turn=turn, event=event)

        heard.__module__, heard.__qualname__ = "saga", ".".join(filter(None, (self.plan.name, step, what)))
        return heard

    async def _move(
        self,
        db: Transaction,
        key: str,
        what: What,
        *,
        step: str = "",
        turn: int = -1,
        after: float = 0.0,
        event: Event | None = None,
    ) -> bool:
        row = (await db.execute(_LOCK, {"s": self.plan.name, "k": key})).first()
        if row is None:
            return False  # the fact is of something that this saga never asked for
        state = self._state(row)
        next = advance(self.plan, state, what, step=step, turn=turn, after=after)
        if next is None:
            return False
        if not step and (at := waits_for(self.plan, state)) is not None:
            step = self.plan.steps[at].name
        data = self._decode(row.data)
        told = Saga.Turn(key, what, step, next.state.phase, data, event)
        if self._on_fact is not None and (kept := await self._on_fact(db, told)) is not None:
            data = kept
        packed, now = self._packed(data), _now()
        values = self._row(next, packed, now)
        values["ended"] = now if row.ended is None and next.state.ended else row.ended
        new = {f"new_{name}": value for name, value in values.items()}
        moved = await db.execute(_MOVE, {"s": self.plan.name, "k": key, "before": state.turn, **new})
        if not moved.rowcount:
            raise Misconfigured(
                f"saga {self.plan.name!r}: on_fact moved the saga of its own turn", "call it from a handler or a route"
            )
        self._ask(db, key, next, data)
        self._tell(key, step, state, next.state)
        if self._on_end is not None and next.state.ended and row.ended is None:
            await self._on_end(db, msgspec.structs.replace(told, data=data))
        return True

    def _ask(self, db: Transaction, key: str, next: Next, data: object) -> None:
        for command in next.commands:
            payload = data if self._sends is None else self._sends(command.step.name, command.verb, data)
            db.emit(command.topic(self.plan, key), payload)
        if next.after:
            db.later(next.after, self._fill(self._deadline, key), _Deadline(next.state.turn))

    def _tell(self, key: str, step: str, before: State, state: State) -> None:
        where = f"saga {self.plan.name} of {key}"
        if state.stuck:
            _logger.warning("%s is stuck: %s does not answer, asked %d times", where, step, state.tries + 1)
        elif before.ended:
            _logger.warning("%s had ended, but %s is done after all", where, step)

    def _row(self, next: Next, data: bytes, now: int) -> dict[str, object]:
        state = next.state
        return {
            "phase": state.phase,
            "steps": _encode(dict(zip((step.name for step in self.plan.steps), state.steps, strict=True))),
            "data": data,
            "turn": state.turn,
            "tries": state.tries,
            "late": now + int(next.after * 1000) if next.after else None,
        }

    def _state(self, row: Row[*tuple[Any, ...]]) -> State:
        known = _decode_steps(row.steps)
        names = [step.name for step in self.plan.steps]
        if gone := [name for name, status in known.items() if status != "idle" and name not in names]:
            raise Misconfigured(
                f"saga {self.plan.name!r} of {row.key!r} is past step {gone[0]!r}, which is not in its table any more",
                "keep the step until such sagas have ended, or give the new table a new name",
            )
        return State(row.phase, tuple(known.get(name, "idle") for name in names), row.turn, row.tries)

    def _packed(self, data: object) -> bytes:
        """Return ``data`` as JSON that will be understood when it is read; raises msgspec's ValidationError."""
        packed = _encode(data)
        self._decode(packed)
        return packed

    def _fill(self, pattern: str, key: str) -> str:
        return pattern.replace(f"{{{self.plan.key}}}", key)


def _check(key: str) -> None:
    if "/" in check_name(key) or len(key) > 256:
        raise BadTopic(f"{key!r} is no key of a saga", "use one level of a topic, of at most 256 characters")


def _now() -> int:
    # For people, and for what is forgotten after months: deadlines are the outbox's, by the database's clock.
    return time.time_ns() // 1_000_000
