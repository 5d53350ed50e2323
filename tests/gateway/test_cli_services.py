"""The commands about services, as an operator types them: migrate, work --as, and those that applications bring."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.log import AppLog, Log
from gateway.core.event import Draft, Event, Meta
from tests.gateway.test_cli import Place
from tests.servers import eventually

SHOP = '''
import msgspec, sqlalchemy as sa
from gateway import App, Context, Service, Topic
from gateway.sql import Database

TABLES = sa.MetaData()
TAKEN = sa.Table("taken", TABLES, sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
                 sa.Column("id", sa.String(64)))

class Order(msgspec.Struct):
    item: str

stock = Service("stock", database=Database(tables=TABLES), emits=["shop/orders/{order}/reserved"])

@stock.on("shop/orders/{order}/placed")
async def take(order: Order, context: Context) -> None:
    db = await context.transaction()
    await db.execute(TAKEN.insert(), {"id": context.event.id})
    db.emit(f"shop/orders/{context.variables['order']}/reserved", order)

moved = Service("moved", database=Database(tables=TABLES, migrations="moved_migrations"))

@moved.on("shop/orders/{order}/reserved")
async def move(order: Order, context: Context) -> None: ...

plain = Service("plain")

@plain.on("shop/orders/{order}/reserved")
async def nothing(order: Order, context: Context) -> None: ...

def restock(sku: str, count: int = 10) -> None:
    """Put more on the shelf."""
    print(f"{count} {sku}")

topics = [Topic(pattern="shop/orders/{order}/+", key="{order}")]
app = App("shop", topics, services=[stock, moved, plain], commands=[restock])
'''


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "moved_migrations").mkdir()
    with embedded.valkey(tmp_path / "log") as server:
        (tmp_path / "gateway.toml").write_text(
            f'[gateway]\ndata = ".gateway"\napps = ["shop:app"]\npartitions = 2\n[log]\nurl = "{server.url}"\n'
        )
        yield Place(tmp_path, server.url)


@contextmanager
def working(shop: Place, *words: str) -> Iterator[Server]:
    port = embedded.free_port()
    argv = (sys.executable, "-m", "gateway.cli", "work", *words, "--health", f"127.0.0.1:{port}")
    argv = (*argv, "--config", str(shop.folder / "gateway.toml"))
    asks = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    door = Door(f"http://127.0.0.1:{port}", port=port, asks=asks, expects=b"HTTP/1.1 200")
    with Server(Plan("work", argv, shop.folder, (door,))) as server:
        yield server


def taken(shop: Place) -> list[str]:
    with sqlite3.connect(shop.folder / ".gateway" / "shop.stock.db") as db:
        return [row[0] for row in db.execute("SELECT id FROM taken ORDER BY n")]


async def place(shop: Place, *ids: str) -> None:
    log = await Log.open(shop.url, [AppLog("shop")], partitions=2, keys={"shop/orders/+/+": "{order}"})
    running = asyncio.create_task(log.run(), name="log")
    for id in ids:
        event = Event("shop/orders/7/placed", b'{"item":"tea"}', id, Meta())
        await log.append("shop.0", [Draft(event, "7")], patient=True)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await log.close()


async def test_a_service_is_handled_once_more_as_a_group_of_its_own(shop: Place) -> None:
    await place(shop, "a", "b")
    with working(shop, "shop.stock") as worker:
        await eventually(lambda: (shop.folder / ".gateway/shop.stock.db").exists() and taken(shop) == ["a", "b"])
        await asyncio.to_thread(worker.stop)
    with working(shop, "shop.stock", "--as", "again", "--from", "earliest"):
        await eventually(lambda: taken(shop) == ["a", "b", "a", "b"])
    assert "shop.stock.again" in shop.run("groups").stdout
    assert "is forgotten" in shop.run("groups", "forget", "shop.stock.again").stdout
    assert "shop.stock.again" not in shop.run("groups").stdout
    refused = shop.run("groups", "forget", "shop.stock")
    assert (refused.returncode, "is a service" in refused.stderr) == (1, True)
    log = await Log.open(shop.url, [AppLog("shop")], partitions=2, keys={"shop/orders/+/+": "{order}"})
    emitted = [
        record.event.id
        for partition in log.partitions()
        for record in await log.recent_deliveries(partition, 100)
        if record.event.topic.endswith("reserved")
    ]
    await log.close()
    assert len(emitted) == 4
    assert len(set(emitted)) == 2  # others know them, and drop the second


def test_tables_are_brought_up_to_date_and_revisions_written(shop: Place) -> None:
    assert "is up to date" in shop.run("migrate", "shop.stock").stdout
    assert taken(shop) == []
    written = shop.run("migrate", "shop.moved", "--new", "the table taken")
    assert "wrote" in written.stdout, written.stderr
    (revision,) = (shop.folder / "moved_migrations").glob("*.py")
    assert "create_table" in revision.read_text()
    assert "gateway_inbox" not in revision.read_text()
    assert "is up to date" in shop.run("migrate", "shop.moved").stdout
    with sqlite3.connect(shop.folder / ".gateway" / "shop.moved.db") as db:
        assert db.execute("SELECT count(*) FROM taken").fetchone() == (0,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("migrate", "shop.plain"), "has no database"),
        (("migrate", "shop.nobody"), "there is no service"),
        (("migrate", "shop.stock", "--new", "x"), "has no migrations"),
        (("work", "shop.stock", "--as", "No Name"), "is no name"),
    ],
)
def test_what_cannot_be_done_is_said(shop: Place, words: tuple[str, ...], said: str) -> None:
    done = shop.run(*words)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_database_that_is_not_there_is_named_without_its_password(shop: Place) -> None:
    done = shop.run("migrate", "shop.stock", GATEWAY_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_applications_bring_commands(shop: Place) -> None:
    assert shop.run("shop", "restock", "tea", "--count", "3").stdout == "3 tea\n"
    assert "Put more on the shelf." in shop.run("shop", "--help").stdout
    assert shop.run("nothing").returncode == 2
