"""A service's database in one SQLite file: bodies take turns on one connection, and share a commit.

Statements run on the event loop's own thread: each takes microseconds, and handing one to a thread and its result back
costs more than it does (decision 10). What waits for the disk, or for another process, has a thread: COMMIT, and BEGIN
where the file is taken.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Executable, ScalarResult, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from gateway import limits
from gateway.adapters.database import tables
from gateway.adapters.database.migrate import Schema
from gateway.errors import Busy, Misconfigured, NotAvailable, StorageFull, Unavailable
from gateway.store import Outgoing, Parameters, Row, SagaCount

if TYPE_CHECKING:
    from gateway.store import Rows

_logger = logging.getLogger("gateway.database")
T = TypeVar("T")

#: WAL: readers see what is committed beside the writer. FULL: what COMMIT says survives a power cut.
_PRAGMAS: Final = (
    f"busy_timeout={int(limits.DATABASE_BUSY * 1000)}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=0",
)


class _Statements:
    """Statements on one connection, by the loop's own thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Parameters = None) -> Rows:
        began = time.perf_counter()
        with typed():
            result = self._connection.execute(statement, parameters)
        if (took := time.perf_counter() - began) > limits.STATEMENT_WITHIN:
            _logger.warning("a statement held up the process for %.0f ms: %.200s", took * 1000, statement)
        return result

    async def scalar(self, statement: Executable, parameters: Parameters = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def scalars(self, statement: Executable, parameters: Parameters = None) -> ScalarResult[Any]:
        return (await self.execute(statement, parameters)).scalars()


class SqliteStore:
    """Opens, writes and reads one file. Any number of processes may; they wait for each other in BEGIN."""

    def __init__(self, engine: Engine, writer: Connection, reader: Connection) -> None:
        """Use `open`."""
        self._engine, self._writer, self._reader = engine, writer, reader
        self._threads = ThreadPoolExecutor(1, "sqlite")
        #: Bodies that wait for their turn.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False
        #: Whether a transaction is open; bodies in it; those whose end waits for its commit.
        self._begun, self._bodies = False, 0
        self._ended: list[asyncio.Future[None]] = []
        #: Bodies that commit alone, since a commit of many failed: whoever made it fail then harms nobody else.
        self._singly = 0
        self.commits = 0

    @classmethod
    def attach(cls, url: str) -> SqliteStore:
        """As `open`, but its tables stay as they are; raises `NotAvailable` where there is no file yet."""
        if not Path(url.removeprefix("sqlite:///")).exists():
            raise NotAvailable("its file is made by the first worker")
        engine = _engine(url)
        return cls(engine, _connected(engine), _connected(engine))

    @classmethod
    async def open(cls, url: str, schema: Schema) -> SqliteStore:
        """Open or make the file and bring its tables up to date; raises `Misconfigured` or `Unavailable`."""
        engine = _engine(url)
        store = cls(engine, _connected(engine), _connected(engine))
        try:
            await store.run(schema.bring_up)
            _driver(store._reader).execute("PRAGMA query_only=ON")
        except BaseException as error:
            await store.close()
            if isinstance(error, OperationalError) and "readonly" in str(error.orig):
                raise _unusable(error) from error
            raise
        return store

    async def begin(self) -> SqliteWork:
        if self._taken:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()  # it was our turn already
                raise
        self._taken = True
        try:
            if not self._begun:
                await self._begin()
            _driver(self._writer).execute("SAVEPOINT body")
        except BaseException:
            self._pass_on()
            raise
        self._bodies += 1
        return SqliteWork(self, self._writer)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[_Statements]:
        yield _Statements(self._reader)

    async def seen(self, group: str, ids: Sequence[str]) -> set[str]:
        return await tables.seen(_Statements(self._reader), group, ids)

    async def due(self, most: int) -> tuple[list[Row], float | None]:
        return await tables.due(_Statements(self._reader), _now(), most)

    async def lead(self, holder: str, ttl: float) -> bool:
        return await self._body(lambda work: tables.lead(work, "sqlite", _now(), holder, ttl))

    async def sent(self, rows: Sequence[Row]) -> None:
        await self._body(lambda work: tables.sent(work, rows))

    async def outbox_age(self) -> float:
        return await tables.outbox_age(_Statements(self._reader), _now())

    async def sagas(self, names: Sequence[str]) -> list[SagaCount]:
        return await tables.sagas(_Statements(self._reader), _now(), names)

    async def purge(self, older: float) -> int:
        before = _now() - int(older * 1000)
        return await self._body(lambda work: tables.purge(work, before, limits.PURGE_PAGE))

    async def close(self) -> None:
        """Let the commit that is under way end, and close the file."""
        await asyncio.to_thread(self._threads.shutdown)
        self._writer.close()
        self._reader.close()
        self._engine.dispose()

    # --- bodies, one after another ---

    def end(self, ended: asyncio.Future[None]) -> None:
        """A body is done: it waits for the commit, and the next may have its turn."""
        self._ended.append(ended)
        self._pass_on()

    def undo(self) -> None:
        """A body is undone, and nothing else with it."""
        driver = _driver(self._writer)
        if driver.in_transaction:
            driver.execute("ROLLBACK TO body")
            driver.execute("RELEASE body")
        else:
            # A full disk, among others, undoes everything (SQLite, "Response To Errors Within A Transaction").
            self._over(Unavailable("the database undid the transaction", retry_after=1.0))
        self._pass_on()

    def _pass_on(self) -> None:
        if self._bodies < (1 if self._singly else limits.SHARED_COMMIT) and self._wake_one():
            return
        if self._begun:
            committing = asyncio.get_running_loop().run_in_executor(self._threads, self._commit)
            committing.add_done_callback(self._committed)
        else:
            self._taken = self._wake_one()

    def _wake_one(self) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False

    def _commit(self) -> None:
        with typed():
            _driver(self._writer).execute("COMMIT")

    def _committed(self, done: asyncio.Future[None]) -> None:
        error = done.exception()
        self._singly = max(0, self._singly - self._bodies)
        if error is not None:
            if len(self._ended) > 1:
                self._singly = len(self._ended)
            if _driver(self._writer).in_transaction:
                _driver(self._writer).execute("ROLLBACK")
        self.commits += error is None
        self._over(error)
        self._taken = self._wake_one()

    def _over(self, error: BaseException | None) -> None:
        """The transaction is over, and whoever waits for its end hears how."""
        ended, self._ended = self._ended, []
        self._begun, self._bodies = False, 0
        for one in ended:
            if one.done():
                continue
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(error)

    async def _begin(self) -> None:
        driver = _driver(self._writer)
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                with typed():
                    raise
            await asyncio.get_running_loop().run_in_executor(self._threads, self._begin_patiently)
        self._begun = True

    def _begin_patiently(self) -> None:
        driver = _driver(self._writer)
        driver.execute(f"PRAGMA busy_timeout={int(limits.DATABASE_BUSY * 1000)}")
        try:
            with typed():
                driver.execute("BEGIN IMMEDIATE")
        finally:
            driver.execute("PRAGMA busy_timeout=0")

    async def _body(self, does: Callable[[SqliteWork], Awaitable[T]]) -> T:
        work = await self.begin()
        try:
            result = await does(work)
        except BaseException:
            await work.rollback()
            raise
        await work.commit()
        return result

    async def run(self, does: Callable[[Connection], T]) -> T:
        """Run what is no coroutine, in a transaction of its own, before anybody else writes."""

        def run() -> T:
            # Of several processes that start at once one makes the tables, and the others find them.
            self._begin_patiently()
            # SQLAlchemy's own transaction begins nothing here, but its end is a COMMIT or a ROLLBACK of the file's.
            with self._writer.begin():
                return does(self._writer)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


class SqliteWork(_Statements):
    """One body of a transaction that others may share: its savepoint."""

    def __init__(self, store: SqliteStore, connection: Connection) -> None:
        super().__init__(connection)
        self._store = store

    async def claim(self, group: str, ids: Sequence[str]) -> None:
        await tables.claim(self, "sqlite", group, ids)

    async def answer(self, group: str, id: str, reply: bytes) -> None:
        await tables.answer(self, group, id, reply)

    async def put(self, outgoing: Sequence[Outgoing]) -> None:
        await tables.put(self, _now(), outgoing)

    async def commit(self) -> None:
        try:
            _driver(self._connection).execute("RELEASE body")
        except sqlite3.OperationalError:
            self._store.undo()
            with typed():
                raise
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._store.end(ended)
        await ended

    async def rollback(self) -> None:
        self._store.undo()


@contextmanager
def typed() -> Iterator[None]:
    """Make what is no fault of a statement an error of ours."""
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as error:
        raw = error.orig if isinstance(error, OperationalError) else error
        code = getattr(raw, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(f"the database is taken: {raw}", "another process holds it for long", retry_after=1.0) from error
        if code == sqlite3.SQLITE_FULL:
            raise StorageFull(f"the database cannot grow: {raw}", "make room on its disk", retry_after=5.0) from error
        if code == sqlite3.SQLITE_IOERR:
            raise Unavailable(f"the database cannot be read or written: {raw}", retry_after=5.0) from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB):
            raise _unusable(error) from error
        raise


def _unusable(error: Exception) -> Misconfigured:
    return Misconfigured(f"the database cannot be used: {error}", "see its path and its rights")


def _engine(url: str) -> Engine:
    # AUTOCOMMIT: what begins and ends is said here, in words, and by nobody else.
    options = {"check_same_thread": False, "isolation_level": None, "cached_statements": 512}
    # An error is logged, and shown with a dead letter: what is in the row is not.
    return create_engine(
        url, connect_args=options, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
    )


def _connected(engine: Engine) -> Connection:
    with typed():
        connection = engine.connect()
        for pragma in _PRAGMAS:
            _driver(connection).execute(f"PRAGMA {pragma}")
    return connection


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


def _now() -> int:
    # Whoever shares the file is on this machine, and reads this clock.
    return time.time_ns() // 1_000_000
