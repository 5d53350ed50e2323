"""A worker with a database in a process of its own, to be killed; and databases that are broken on purpose.

``python -m tests.faults.inbox_process LOG_URL DATABASE_URL SERVICE KIND NAME`` writes "up" when it has joined its
group. The service ``stock`` notes each order that it takes and emits a fact; ``mail`` notes each fact.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
import uvloop

from gateway import App, Context, Retry, Service, Topic, limits
from gateway.adapters.log import AppLog, Log
from gateway.app import declare
from gateway.settings import Settings
from gateway.sql import Database
from gateway.store import Outgoing, Store, Work
from gateway.worker import Worker
from tests.faults.worker_until import until_told

PARTITIONS = 4
LEASE = 1.0
TABLES = sa.MetaData()
#: One row each time that something was done: a second one with the same id is a second effect.
DONE = sa.Table(
    "done",
    TABLES,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64)),
    sa.Column("key", sa.String(16)),
    sa.Column("n", sa.Integer),
)
RETRY = Retry(20, first=0.02, most=0.1)


class Order(msgspec.Struct):
    n: int


stock = Service("stock", emits=["shop/stock/{order}/taken"], database=Database(tables=TABLES))
mail = Service("mail", database=Database(tables=TABLES))


async def _note(order: Order, context: Context) -> None:
    db = await context.transaction()
    key = context.variables["order"]
    await db.execute(DONE.insert(), {"id": f"{key}-{order.n}", "key": key, "n": order.n})


@stock.on("shop/orders/{order}/placed", retry=RETRY)
async def take(order: Order, context: Context) -> None:
    await _note(order, context)
    context.emit(f"shop/stock/{context.variables['order']}/taken", order)
    if order.n % 7 == 0 and context.attempt == 1:
        raise ValueError("not yet")


@mail.on("shop/stock/{order}/taken", retry=RETRY)
async def tell(order: Order, context: Context) -> None:
    await _note(order, context)


APP = App(
    "shop",
    topics=[
        Topic(pattern="shop/orders/{order}/placed", key="{order}"),
        Topic(pattern="shop/stock/{order}/taken", key="{order}"),
    ],
    services=[stock, mail],
)
DECLARED = declare(Settings(), [APP])
DECLARED = type(DECLARED)(DECLARED.topics, PARTITIONS)


class _Around:
    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)


class _ForgetfulWork(_Around):
    async def claim(self, group: str, ids: Sequence[str]) -> None:
        """Notes nothing, so it never says that something was handled before."""


class NoInbox(_Around):
    """Handles an event as often as it comes."""

    async def begin(self) -> Work:
        return _ForgetfulWork(await self.inside.begin())

    async def seen(self, group: str, ids: Sequence[str]) -> set[str]:
        return set()


class _LeakyWork(_Around):
    def __init__(self, inside: Any, late: list[Outgoing]) -> None:
        super().__init__(inside)
        self.late, self.mine = late, list[Outgoing]()

    async def put(self, outgoing: Sequence[Outgoing]) -> None:
        self.mine += outgoing

    async def commit(self) -> None:
        await self.inside.commit()
        self.late += self.mine  # in memory: gone with the process


class NoOutbox(_Around):
    """Keeps what leaves in memory until a moment after the commit."""

    def __init__(self, inside: Any) -> None:
        super().__init__(inside)
        self.late: list[Outgoing] = []

    async def begin(self) -> Work:
        return _LeakyWork(await self.inside.begin(), self.late)

    async def due(self, most: int) -> Any:
        late = self.late[:]
        self.late.clear()
        if late:
            work = await self.inside.begin()
            await work.put(late)
            await work.commit()
        return await self.inside.due(most)


KINDS: dict[str, type[_Around] | None] = {"Whole": None, "NoInbox": NoInbox, "NoOutbox": NoOutbox}


async def main(log_url: str, database: str, name_of_service: str, kind: str, name: str) -> None:
    logging.basicConfig(level="ERROR")
    limits.WORKER_SILENT = 2 * LEASE  # type: ignore[misc]  # shorter for tests
    limits.RELAY_LEASE = LEASE  # type: ignore[misc]  # as short as the one before
    service = {"stock": stock, "mail": mail}[name_of_service]
    log = await Log.open(log_url, [AppLog("shop")], partitions=PARTITIONS)
    store: Store = await Database(tables=TABLES).open(database)
    broken = KINDS[kind]
    held: Any = store if broken is None else broken(store)
    worker = Worker(log, DECLARED, f"shop.{name_of_service}", service, name=name, lease=LEASE, beat=0.1, store=held)
    await until_told(worker, within=30)
    await store.close()
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
