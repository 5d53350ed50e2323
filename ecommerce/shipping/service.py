"""The service ``ecommerce.shipping``: packs, hands over and delivers; a simulated warehouse and its carrier."""

from __future__ import annotations

from ecommerce import limits
from ecommerce.events import Nothing, Shipped
from ecommerce.rows import insert_new
from ecommerce.settings import settings
from ecommerce.shipping.rules import STEPS, What, tracking
from ecommerce.shipping.tables import PARCELS, TABLES
from gateway import Context, Service
from gateway.sql import Database

service = Service(
    "shipping",
    database=Database(tables=TABLES, migrations="ecommerce.shipping.migrations"),
    emits=["ecommerce/shipping/{order}/shipped", "ecommerce/shipping/{order}/delivered"],
    delays=["ecommerce/shipping/{order}/packed", "ecommerce/shipping/{order}/arrived"],
)


@service.on("ecommerce/shipping/{order}/ship")
async def ship(asked: Nothing, context: Context) -> None:
    await _step("ship", context)


@service.on("ecommerce/shipping/{order}/packed")
async def packed(asked: Nothing, context: Context) -> None:
    await _step("packed", context)


@service.on("ecommerce/shipping/{order}/deliver")
async def deliver(asked: Nothing, context: Context) -> None:
    await _step("deliver", context)


@service.on("ecommerce/shipping/{order}/arrived")
async def arrived(asked: Nothing, context: Context) -> None:
    await _step("arrived", context)


async def _step(what: What, context: Context) -> None:
    db, order, known = await context.transaction(), context.variables["order"], settings()
    await insert_new(db, PARCELS, {"order": order, "status": "none", "tracking": tracking(order)})
    row = PARCELS.c.order == order
    status = await db.scalar(PARCELS.select().with_only_columns(PARCELS.c.status).where(row).with_for_update())
    found = STEPS.get((status, what))
    if found is None:
        return
    await db.execute(PARCELS.update().where(row).values(status=found[0]))
    match found[1]:
        case "pack":
            context.later(max(limits.AT_ONCE, known.packing), f"ecommerce/shipping/{order}/packed", Nothing())
        case "drive":
            context.later(max(limits.AT_ONCE, known.driving), f"ecommerce/shipping/{order}/arrived", Nothing())
        case "shipped":
            context.emit(f"ecommerce/shipping/{order}/shipped", Shipped(tracking(order)))
        case "delivered":
            context.emit(f"ecommerce/shipping/{order}/delivered", Nothing())
