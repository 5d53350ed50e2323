"""What every service's database promises: effect, inbox and outbox together or not at all, whoever shares a commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway import limits
from gateway.adapters.database import Schema, connect
from gateway.adapters.database.find import _made
from gateway.adapters.database.sqlite import SqliteStore
from gateway.core.event import Event, Meta
from gateway.errors import Misconfigured, Unavailable
from gateway.sql import find, upsert
from gateway.store import Outgoing, Reading, Seen, Store
from tests import databases
from tests.databases import KINDS, NewDatabase, postgres
from tests.servers import eventually

TABLES = sa.MetaData()
STOCK = sa.Table("stock", TABLES, sa.Column("sku", sa.String(40), primary_key=True), sa.Column("n", sa.Integer))
GROUP = "shop.stock"


@pytest.fixture(scope="session", params=sorted(KINDS))
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with KINDS[request.param](tmp_path_factory.mktemp("databases") / request.param) as new:
        yield new


@asynccontextmanager
async def opened(url: str, schema: Schema | None = None) -> AsyncIterator[Store]:
    store = await connect(url, schema or Schema(TABLES))
    try:
        yield store
    finally:
        await store.close()


async def put(db: Reading, sku: str, n: int = 1) -> None:
    await db.execute(STOCK.insert(), {"sku": sku, "n": n})


async def skus(store: Store) -> list[str]:
    async with store.read() as db:
        return sorted(await db.scalars(sa.select(STOCK.c.sku)))


def event(id: str, topic: str = "shop/stock/7/taken") -> Event:
    return Event(topic, b"{}", id, Meta(ts=1, producer="service:shop.stock"))


async def test_effect_inbox_and_outbox_are_there_together(new_database: NewDatabase) -> None:
    async with opened(new_database("together")) as store:
        work = await store.begin()
        await work.claim(GROUP, ["a"])
        await put(work, "tea")
        await work.put([Outgoing(event("x")), Outgoing(event("y"))])
        assert await skus(store) == []
        await work.commit()
        assert await skus(store) == ["tea"]
        assert await store.seen(GROUP, ["a", "b"]) == {"a"}
        rows, _ = await store.due(10)
        assert [row.event for row in rows] == [event("x"), event("y")]


async def test_or_not_at_all(new_database: NewDatabase) -> None:
    async with opened(new_database("nothing")) as store:
        work = await store.begin()
        await work.claim(GROUP, ["a"])
        await put(work, "tea")
        await work.put([Outgoing(event("x"))])
        await work.rollback()
        assert (await skus(store), await store.seen(GROUP, ["a"]), await store.due(10)) == ([], set(), ([], None))


async def test_an_event_is_handled_once_by_each_group_and_its_reply_is_kept(new_database: NewDatabase) -> None:
    async with opened(new_database("once")) as store:
        work = await store.begin()
        await work.claim(GROUP, ["a"])
        await work.answer(GROUP, "a", b'{"ok":true}')
        await work.commit()
        work = await store.begin()
        with pytest.raises(Seen) as seen:
            await work.claim(GROUP, ["a"])
        assert seen.value.reply == b'{"ok":true}'
        await work.rollback()
        work = await store.begin()
        await work.claim("shop.other", ["a"])
        await work.commit()


async def test_a_batch_with_one_that_was_handled_fails_whole(new_database: NewDatabase) -> None:
    async with opened(new_database("batch")) as store:
        work = await store.begin()
        await work.claim(GROUP, ["a"])
        await work.commit()
        work = await store.begin()
        with pytest.raises(sa.exc.IntegrityError):
            await work.claim(GROUP, ["b", "a", "c"])
        await work.rollback()
        assert await store.seen(GROUP, ["a", "b", "c"]) == {"a"}


async def test_a_row_that_is_there_is_left_or_changed_as_said(new_database: NewDatabase) -> None:
    async with opened(new_database("upsert")) as store:
        work = await store.begin()
        more = upsert(STOCK, "n = stock.n + excluded.n", "excluded.n > 0")
        for statement, n in ((upsert(STOCK), 1), (upsert(STOCK, columns=["sku", "n"]), 7), (more, 2), (more, -9)):
            await work.execute(statement, {"sku": "tea", "n": n})
        await work.commit()
        async with store.read() as db:
            assert await db.scalar(sa.select(STOCK.c.n)) == 3


async def test_many_keys_are_found_by_the_index(new_database: NewDatabase) -> None:
    tables = sa.MetaData()
    points = sa.Table(
        "points",
        tables,
        sa.Column("series", sa.String(40), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("data", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    keys = [(f"s{n % 7}", n) for n in range(1_500)]
    async with opened(new_database("find"), Schema(tables)) as store:
        work = await store.begin()
        await work.execute(points.insert(), [{"series": s, "seq": n, "data": b"%d" % n} for s, n in keys])
        await work.commit()
        async with store.read() as db:
            for count in (0, 1, 2, 3, 511, 512, 513, 1_400):
                wanted = [*keys[:count], ("s0", -1), ("none", 3)]
                rows = await find(db, points, wanted)
                assert sorted((row.series, row.seq, row.data) for row in rows) == sorted(
                    (series, n, b"%d" % n) for series, n in keys[:count]
                )
            assert await find(db, points, []) == []
            if isinstance(store, SqliteStore):
                plan = sa.text(f"EXPLAIN QUERY PLAN {_made(points, 2)}").bindparams(
                    *(sa.bindparam(name, None) for name in ("k0_0", "k0_1", "k1_0", "k1_1"))
                )
                steps = [row.detail for row in await db.execute(plan)]
                assert "SEARCH this USING PRIMARY KEY (series=? AND seq=?)" in steps


async def test_an_error_does_not_say_what_is_in_the_row(new_database: NewDatabase) -> None:
    async with opened(new_database("hidden")) as store:
        work = await store.begin()
        with pytest.raises(sa.exc.StatementError) as error:
            await work.execute(sa.text("INSERT INTO nowhere VALUES (:who)"), {"who": "ann@example.org"})
        assert "ann@example.org" not in str(error.value)
        await work.rollback()


async def test_a_body_that_fails_takes_nobody_with_it(new_database: NewDatabase) -> None:
    async with opened(new_database("bodies")) as store:

        async def body(n: int) -> None:
            work = await store.begin()
            try:
                await put(work, f"{n:02}")
                if n % 3 == 0:
                    await put(work, f"{n:02}")  # the same key again
            except sa.exc.IntegrityError:
                await work.rollback()
            else:
                await work.commit()

        await asyncio.gather(*(body(n) for n in range(30)))
        assert await skus(store) == [f"{n:02}" for n in range(30) if n % 3]


async def test_a_delayed_event_waits_for_its_time_and_holds_up_nobody(new_database: NewDatabase) -> None:
    async with opened(new_database("later")) as store:
        work = await store.begin()
        await work.put([Outgoing(event("late"), 3600.0), Outgoing(event("soon"), 0.05), Outgoing(event("now"))])
        await work.commit()
        rows, _ = await store.due(10)
        assert [row.event.id for row in rows][:1] == ["now"]
        await store.sent(rows[:1])

        async def soon() -> bool:
            return [row.event.id for row in (await store.due(10))[0]] == ["soon"]

        await eventually(soon)
        await store.sent((await store.due(10))[0])
        rows, wait = await store.due(10)
        assert rows == []
        assert wait is not None
        assert 3000 < wait <= 3600


async def test_one_at_a_time_empties_the_outbox(new_database: NewDatabase) -> None:
    url = new_database("lead")
    async with opened(url) as one, opened(url) as other:
        assert await one.lead("one", 0.2)
        assert not await other.lead("other", 0.2)
        assert await one.lead("one", 0.2)

        async def taken() -> bool:
            return await other.lead("other", 60)

        await eventually(taken)
        assert not await one.lead("one", 0.2)


async def test_what_was_handled_is_forgotten_a_page_at_a_time(new_database: NewDatabase) -> None:
    async with opened(new_database("purge")) as store:
        work = await store.begin()
        await work.claim(GROUP, [f"{n}" for n in range(limits.PURGE_PAGE + 1)])
        await work.commit()
        assert await store.purge(3600) == 0
        assert await store.purge(-3600) == limits.PURGE_PAGE
        assert await store.purge(-3600) == 1


async def test_a_server_that_dies_is_named_and_forgotten() -> None:
    with postgres() as server:
        async with opened(await asyncio.to_thread(databases.new_database, server, "dies")) as store:

            async def empty() -> bool:
                return await skus(store) == []

            reading = store.read()
            db, given_up, kept = await reading.__aenter__(), await store.begin(), await store.begin()
            assert await db.scalar(sa.select(1)) == await given_up.scalar(sa.select(1)) == 1
            await put(kept, "tea")
            await asyncio.to_thread(server.kill)
            await reading.__aexit__(None, None, None)  # what was read is read
            await given_up.rollback()
            with pytest.raises(Unavailable):
                await kept.commit()
            await asyncio.to_thread(server.start)
            await eventually(empty, within=60)
            held = [await store.begin() for _ in range(limits.DATABASE_CONNECTIONS)]  # no place is lost
            for one in held:
                await one.rollback()


async def test_several_processes_start_at_once(new_database: NewDatabase) -> None:
    url = new_database("start")
    stores = await asyncio.gather(*(connect(url, Schema(TABLES)) for _ in range(4)))
    for store in stores:
        work = await store.begin()
        await put(work, str(id(store)))
        await work.commit()
    assert len(await skus(stores[0])) == 4
    for store in stores:
        await store.close()


async def test_a_database_of_a_newer_program_is_refused(new_database: NewDatabase) -> None:
    url = new_database("newer")
    async with opened(url) as store:
        work = await store.begin()
        await work.execute(sa.text("UPDATE gateway_revisions SET version_num = 'tomorrow'"))
        await work.commit()
    with pytest.raises(Misconfigured, match="tomorrow"):
        await connect(url, Schema(TABLES))


async def test_a_service_brings_migrations_of_its_own(new_database: NewDatabase, tmp_path: Path) -> None:
    (tmp_path / "0001_stock.py").write_text(_REVISION)
    url = new_database("migrations")
    for _ in range(2):
        async with opened(url, Schema(migrations=str(tmp_path))) as store:
            assert await skus(store) == ["tea"]


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite:////nowhere/at/all.db", "postgresql://postgres@127.0.0.1:1/x", "postgresql://[/x"]
)
async def test_an_address_that_cannot_be_used_says_so(url: str) -> None:
    with pytest.raises((Misconfigured, Unavailable)):
        await connect(url, Schema(TABLES))


# --- SQLite alone: what shares a commit ---


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(f"sqlite:///{tmp_path}/one.db", Schema(TABLES))
    yield store
    await store.close()


async def test_bodies_that_wait_share_one_commit(file: SqliteStore) -> None:
    async def body(n: int) -> None:
        work = await file.begin()
        await put(work, f"{n}")
        await work.commit()

    before = file.commits
    await asyncio.gather(*(body(n) for n in range(limits.SHARED_COMMIT)))
    assert file.commits - before <= 2


async def test_who_is_cancelled_while_he_waits_holds_up_nobody(file: SqliteStore) -> None:
    first = await file.begin()
    waiting = [asyncio.create_task(file.begin()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await first.rollback()  # it hands the turn to the second, which is cancelled before it can take it
    waiting[1].cancel()
    work = await waiting[2]
    await put(work, "tea")
    await work.commit()
    assert await skus(file) == ["tea"]
    for task in waiting[:2]:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_commit_that_fails_is_the_fault_of_one(file: SqliteStore) -> None:
    work = await file.begin()
    await work.execute(sa.text("CREATE TABLE lines (sku TEXT REFERENCES stock(sku) DEFERRABLE INITIALLY DEFERRED)"))
    await work.commit()

    async def body(n: int) -> bool:
        work = await file.begin()
        if n == 7:
            await work.execute(sa.text("INSERT INTO lines VALUES ('nothing')"))  # refused at COMMIT
        else:
            await put(work, f"{n:02}")
        try:
            await work.commit()
        except sqlite3.IntegrityError:
            return False
        return True

    done = await asyncio.gather(*(body(n) for n in range(20)))
    assert not all(done)
    left = [n for n, good in enumerate(done) if not good]
    again = await asyncio.gather(*(body(n) for n in left))  # as their events come again: now each alone
    assert [n for n, good in zip(left, again, strict=True) if not good] == [7]
    assert len(await skus(file)) == 19


async def test_another_process_that_writes_is_waited_for(file: SqliteStore, tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/one.db") as other:
        held = await other.begin()
        waiting = asyncio.create_task(file.begin())
        await put(held, "tea")
        await held.commit()
        work = await waiting
        await put(work, "coffee")
        await work.commit()
        assert await skus(file) == ["coffee", "tea"]


async def test_a_reader_sees_what_is_committed_and_writes_nothing(file: SqliteStore) -> None:
    async with file.read() as db:
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            await db.execute(STOCK.insert(), {"sku": "tea", "n": 1})


async def test_a_disk_without_room_is_named(file: SqliteStore) -> None:
    work = await file.begin()
    pages = await work.scalar(sa.text("PRAGMA page_count"))
    await work.execute(sa.text(f"PRAGMA max_page_count = {pages + 2}"))

    async def fill() -> None:
        for n in range(1_000):
            await put(work, f"{n}" * 10)

    with pytest.raises(Unavailable, match="room"):
        await fill()
    await work.rollback()
    work = await file.begin()
    await work.execute(sa.text("PRAGMA max_page_count = 100000"))
    await put(work, "tea")
    await work.commit()
    assert await skus(file) == ["tea"]


_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "stock_0001", None, None, None

def upgrade() -> None:
    stock = op.create_table("stock", sa.Column("sku", sa.String(40), primary_key=True), sa.Column("n", sa.Integer))
    op.bulk_insert(stock, [{"sku": "tea", "n": 1}])
"""
