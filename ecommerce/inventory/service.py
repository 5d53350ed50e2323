"""The service ``ecommerce.inventory``: keeps stock for orders, gives it back, hands it out; never more than it has."""

from __future__ import annotations

from ecommerce.events import Nothing, Reserve, Short
from ecommerce.inventory.routes import ROUTES
from ecommerce.inventory.rules import STEPS, Act, Asked, Reservation, summed
from ecommerce.inventory.tables import PARTS, RESERVATIONS, STOCK, TABLES
from ecommerce.rows import insert_new
from gateway import Context, Rejected, Service
from gateway.sql import Database, Transaction

service = Service(
    "inventory",
    database=Database(tables=TABLES, migrations="ecommerce.inventory.migrations"),
    emits=[f"ecommerce/inventory/{{order}}/{fact}" for fact in ("reserved", "short", "released", "committed")],
    routes=ROUTES,
)


@service.on("ecommerce/inventory/{order}/reserve")
async def reserve(asked: Reserve, context: Context) -> None:
    await _step("reserve", context, summed(asked.lines))


@service.on("ecommerce/inventory/{order}/release")
async def release(asked: Nothing, context: Context) -> None:
    await _step("release", context, [])


@service.on("ecommerce/inventory/{order}/commit")
async def commit(asked: Nothing, context: Context) -> None:
    await _step("commit", context, [])


async def _step(asked: Asked, context: Context, wanted: list[tuple[str, int]]) -> None:
    db, order = await context.transaction(), context.variables["order"]
    await insert_new(db, RESERVATIONS, {"order": order, "status": "none"})
    row = RESERVATIONS.c.order == order
    status: Reservation = await db.scalar(
        RESERVATIONS.select().with_only_columns(RESERVATIONS.c.status).where(row).with_for_update()
    )
    found = STEPS.get((status, asked))
    if found is None:
        raise Rejected(f"cannot {asked} what is {status}")
    then, act, answer = found
    short = await _take(db, order, wanted) if act == "take" else []
    if act in ("give_back", "hand_out"):
        await _let_go(db, order, act)
    if short:
        then, answer = "short", "short"
    await db.execute(RESERVATIONS.update().where(row).values(status=then))
    if answer:
        context.emit(f"ecommerce/inventory/{order}/{answer}", Short(tuple(short)) if answer == "short" else Nothing())


async def _take(db: Transaction, order: str, wanted: list[tuple[str, int]]) -> list[str]:
    """Keep all of it, or nothing; return what there is too little of."""
    taken, short = list[tuple[str, int]](), list[str]()
    for sku, quantity in wanted:
        free = STOCK.c.on_hand - STOCK.c.reserved >= quantity
        more = STOCK.update().where(STOCK.c.sku == sku, free).values(reserved=STOCK.c.reserved + quantity)
        if (await db.execute(more)).rowcount:
            taken.append((sku, quantity))
        else:
            short.append(sku)
    for sku, quantity in taken:
        if short:
            await db.execute(STOCK.update().where(STOCK.c.sku == sku).values(reserved=STOCK.c.reserved - quantity))
        else:
            await db.execute(PARTS.insert(), {"order": order, "sku": sku, "quantity": quantity})
    return short


async def _let_go(db: Transaction, order: str, act: Act) -> None:
    rows = (await db.execute(PARTS.select().where(PARTS.c.order == order).order_by(PARTS.c.sku))).all()
    for row in rows:
        values = {"reserved": STOCK.c.reserved - row.quantity}
        if act == "hand_out":
            values["on_hand"] = STOCK.c.on_hand - row.quantity
        await db.execute(STOCK.update().where(STOCK.c.sku == row.sku).values(values))
