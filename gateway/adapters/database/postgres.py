"""A service's database in PostgreSQL: bodies run side by side, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, Executable, ScalarResult, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.functions import func

from gateway import limits
from gateway.adapters.database import tables
from gateway.adapters.database.migrate import Schema
from gateway.errors import Busy, Misconfigured, StorageFull, Unavailable
from gateway.store import Outgoing, Parameters, Row, SagaCount

if TYPE_CHECKING:
    from gateway.store import Rows

T = TypeVar("T")

#: The server's clock, in milliseconds: workers on several machines read the same one.
_NOW: Final = select((func.extract("epoch", func.clock_timestamp()) * 1000).cast(tables.INBOX.c.at.type))
#: Any number, as long as all processes of all services say the same (PostgreSQL, pg_advisory_xact_lock).
_MIGRATING: Final = 7_466_129_081


class _Statements:
    """Statements on one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Parameters = None) -> Rows:
        with typed():
            return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: Executable, parameters: Parameters = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def scalars(self, statement: Executable, parameters: Parameters = None) -> ScalarResult[Any]:
        return (await self.execute(statement, parameters)).scalars()


class PostgresStore:
    """Opens, writes and reads one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Use `open`."""
        self._engine = engine

    @classmethod
    def attach(cls, url: str) -> PostgresStore:
        """As `open`, but its tables stay as they are."""
        return cls(_engine(url))

    @classmethod
    async def open(cls, url: str, schema: Schema) -> PostgresStore:
        """Connect and bring the tables up to date; raises `Misconfigured` or `Unavailable`."""
        store = cls(_engine(url))
        try:
            await store.run(schema.bring_up)
        except BaseException:
            await store.close()
            raise
        return store

    async def run(self, does: Callable[[Connection], T]) -> T:
        """Run what is no coroutine, in a transaction of its own."""
        with typed():
            async with self._engine.begin() as connection:
                # Of several processes that start at once one makes the tables, and the others find them.
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
                return await connection.run_sync(does)

    async def begin(self) -> PostgresWork:
        with typed():
            connection = await self._engine.connect()
            try:
                await connection.begin()
            except BaseException:
                await _give_back(connection)
                raise
        return PostgresWork(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[_Statements]:
        with typed():
            connection = await self._engine.connect()
        try:
            yield _Statements(connection)
        finally:
            await _give_back(connection)

    async def seen(self, group: str, ids: Sequence[str]) -> set[str]:
        async with self.read() as db:
            return await tables.seen(db, group, ids)

    async def due(self, most: int) -> tuple[list[Row], float | None]:
        async with self.read() as db:
            return await tables.due(db, await db.scalar(_NOW), most)

    async def lead(self, holder: str, ttl: float) -> bool:
        async def lead(work: PostgresWork) -> bool:
            return await tables.lead(work, "postgresql", await work.scalar(_NOW), holder, ttl)

        return await self._body(lead)

    async def sent(self, rows: Sequence[Row]) -> None:
        await self._body(lambda work: tables.sent(work, rows))

    async def outbox_age(self) -> float:
        async with self.read() as db:
            return await tables.outbox_age(db, await db.scalar(_NOW))

    async def sagas(self, names: Sequence[str]) -> list[SagaCount]:
        async with self.read() as db:
            return await tables.sagas(db, await db.scalar(_NOW), names)

    async def purge(self, older: float) -> int:
        async def purge(work: PostgresWork) -> int:
            return await tables.purge(work, await work.scalar(_NOW) - int(older * 1000), limits.PURGE_PAGE)

        return await self._body(purge)

    async def close(self) -> None:
        await self._engine.dispose()

    async def _body(self, does: Callable[[PostgresWork], Awaitable[T]]) -> T:
        work = await self.begin()
        try:
            result = await does(work)
        except BaseException:
            await work.rollback()
            raise
        await work.commit()
        return result


class PostgresWork(_Statements):
    """One transaction on a connection of its own."""

    async def claim(self, group: str, ids: Sequence[str]) -> None:
        # Where another process handles the same event this moment, this waits for its end.
        await tables.claim(self, "postgresql", group, ids)

    async def answer(self, group: str, id: str, reply: bytes) -> None:
        await tables.answer(self, group, id, reply)

    async def put(self, outgoing: Sequence[Outgoing]) -> None:
        await tables.put(self, await self.scalar(_NOW) if any(one.after for one in outgoing) else 0, outgoing)

    async def commit(self) -> None:
        try:
            with typed():
                await self._connection.commit()
        finally:
            await _give_back(self._connection)

    async def rollback(self) -> None:
        await _give_back(self._connection)


async def _give_back(connection: AsyncConnection) -> None:
    """To the pool, rolled back; where the server is gone there is nothing to roll back, and the pool forgets it."""
    try:
        await connection.close()
    except (DBAPIError, OSError, TimeoutError):
        if not connection.closed:
            await connection.invalidate()
            await connection.close()


@contextmanager
def typed() -> Iterator[None]:
    """Make what is no fault of a statement an error of ours."""
    try:
        yield
    except PoolTimeout as error:
        raise Busy("every connection to the database is taken", retry_after=1.0) from error
    except (IntegrityError, ProgrammingError):
        raise  # the statement's own fault
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if state == "53100":
            raise StorageFull("the database's disk is full", "make room on it", retry_after=5.0) from error
        # PostgreSQL, appendix A: connection, transaction rollback, insufficient resources, operator intervention.
        if error.connection_invalidated or not state or state[:2] in ("08", "40", "53", "57"):
            raise Unavailable(f"the database does not answer: {error.orig}", retry_after=1.0) from error
        if state[:2] in ("28", "3D"):
            raise Misconfigured(f"the database lets nobody in: {error.orig}", "see its URL") from error
        raise
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"the database does not answer: {error}", retry_after=1.0) from error


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=limits.DATABASE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=limits.DATABASE_BUSY,
        hide_parameters=True,  # an error is logged, and shown with a dead letter: what is in the row is not
        connect_args={"timeout": limits.DATABASE_CONNECT_WITHIN, "command_timeout": limits.DATABASE_ANSWER_WITHIN},
    )
