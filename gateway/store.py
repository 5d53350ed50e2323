"""What a service keeps: one database whose transactions hold what was handled, what was done and what leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.core.event import Event

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable, ScalarResult

    Rows = CursorResult[*tuple[Any, ...]]

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class Reading(Protocol):
    """A database to be asked. Results are read before the next wait: a later statement may end them."""

    async def execute(self, statement: Executable, parameters: Parameters = None) -> Rows:
        """Run ``statement``, once for each of ``parameters``; raises SQLAlchemy's errors, `Unavailable` or `Busy`."""

    async def scalar(self, statement: Executable, parameters: Parameters = None) -> Any:
        """Return the first column of the first row; None where there is none."""

    async def scalars(self, statement: Executable, parameters: Parameters = None) -> ScalarResult[Any]:
        """Return the first column of all rows."""


class Transaction(Reading, Protocol):
    """What is done here, and what is emitted, is there together or not at all."""

    def emit(self, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """Publish ``payload`` once the transaction is committed, and return the event's id; see ``Context.emit``."""

    def later(self, after: float, topic: str, payload: object, *, headers: Mapping[str, str] | None = None) -> str:
        """Publish ``payload`` ``after`` seconds from now, and return the event's id; see ``Context.later``."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """An event that leaves once its transaction is committed."""

    event: Event
    #: Seconds that it waits.
    after: float = 0.0


class Row(msgspec.Struct, frozen=True, gc=False):
    """An event that waits in the outbox."""

    seq: int
    event: Event
    #: It has waited for its time.
    delayed: bool = False


class SagaCount(msgspec.Struct, frozen=True):
    """How many sagas of one name are open, by their phase; and how many of these somebody should look at."""

    saga: str
    running: int = 0
    finishing: int = 0
    compensating: int = 0
    #: Whose deadline passed without a word of it: its timer is a dead letter, or nobody works.
    overdue: int = 0
    #: Whose command was asked again too often.
    stuck: int = 0

    @property
    def open(self) -> int:
        return self.running + self.finishing + self.compensating


class Seen(BaseException):
    """Raised out of a handler whose event was handled before: nothing more is to be done.

    No `Exception`, so that no handler takes it for a failure of its own.
    """

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("it was handled before")
        self.reply = reply


class Work(Reading, Protocol):
    """An open transaction, as the worker sees it. It ends by `commit` or `rollback`, which never hang on a bad one."""

    async def claim(self, group: str, ids: Sequence[str]) -> None:
        """Note that ``group`` handles the events ``ids``; raises `Seen` where it handled one of them before."""

    async def answer(self, group: str, id: str, reply: bytes) -> None:
        """Keep the reply to an event that was claimed."""

    async def put(self, outgoing: Sequence[Outgoing]) -> None:
        """Add to the outbox, in order."""

    async def commit(self) -> None:
        """Return once it is durable; raises `Unavailable` where nobody can tell, `StorageFull` where it is not."""

    async def rollback(self) -> None:
        """Undo all of it."""


class Store(Protocol):
    """An open database of one service."""

    async def begin(self) -> Work:
        """Begin a transaction; raises `Unavailable`."""

    def read(self) -> AbstractAsyncContextManager[Reading]:
        """Ask what is committed, beside whoever writes."""

    async def seen(self, group: str, ids: Sequence[str]) -> set[str]:
        """Return which events ``group`` has handled."""

    async def lead(self, holder: str, ttl: float) -> bool:
        """Say whether ``holder`` relays for the next ``ttl`` seconds; who does keeps it by asking again."""

    async def due(self, most: int) -> tuple[list[Row], float | None]:
        """Return what may leave now, in order, and in how many seconds the next one may; None where none waits."""

    async def sent(self, rows: Sequence[Row]) -> None:
        """Forget rows that are in the log."""

    async def outbox_age(self) -> float:
        """Return for how many seconds the first event that may leave has waited; 0 where none may."""

    async def sagas(self, names: Sequence[str]) -> list[SagaCount]:
        """Count what is open, of each name."""

    async def purge(self, older: float) -> int:
        """Forget what was handled more than ``older`` seconds ago; returns how many, at most one page."""

    async def close(self) -> None:
        """End its connections."""


class Database(Protocol):
    """A declared database: `gateway.sql.Database` is one. A value: nothing is opened before a process serves it."""

    async def open(self, url: str) -> Store:
        """Connect, and bring the tables up to date; raises `Misconfigured`, or `Unavailable` (call again)."""

    async def bring_up(self, url: str, new: str = "") -> Path | None:
        """Bring the tables up to date; or write the revision ``new`` with what they lack, and return its file."""
