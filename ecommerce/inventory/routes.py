"""What inventory answers over HTTP: below ``/ecommerce/inventory``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from ecommerce import limits
from ecommerce.events import Sku
from ecommerce.inventory.tables import RECEIPTS, STOCK
from ecommerce.rows import insert_new
from gateway.sql import reading, transaction
from gateway.web import Listing, NotAvailable, Page, Refused, operation


class Received(msgspec.Struct, forbid_unknown_fields=True):
    sku: Sku
    quantity: Annotated[int, msgspec.Meta(ge=1, le=limits.RECEIPT_MOST)]


class Left(msgspec.Struct, frozen=True):
    """How much of an article can still be ordered."""

    sku: str
    available: int


class Receipt(msgspec.Struct, frozen=True):
    receipt: str
    sku: str
    quantity: int


class Stock(msgspec.Struct, frozen=True):
    """What there is of an article, and how much of that is promised."""

    sku: str
    on_hand: int
    reserved: int


class NotAReceipt(Refused):
    """A receipt that cannot be one."""

    code, status = "bad_receipt", 422


@operation("How much of an article can still be ordered.", grants=["anyone"], errors=[NotAvailable])
async def left(request: Request) -> Left:
    async with reading(request) as db:
        row = (await db.execute(STOCK.select().where(STOCK.c.sku == request.path_params["sku"]))).first()
    if row is None:
        raise NotAvailable("there never was any of it", "look at the catalog")
    return Left(row.sku, row.on_hand - row.reserved)


@operation(
    "Note that goods came in.",
    grants=["operator"],
    errors=[NotAReceipt],
    description="The receipt's number is in the path, at most 64 characters, so that the same one again adds nothing.",
)
async def receive(request: Request, body: Received) -> Receipt:
    came, id = body, request.path_params["receipt"]
    if len(id) > 64:
        raise NotAReceipt("the receipt's number is too long", "use at most 64 characters")
    async with transaction(request) as db:
        if await insert_new(db, RECEIPTS, {"id": id, "sku": came.sku, "quantity": came.quantity}):
            await insert_new(db, STOCK, {"sku": came.sku, "on_hand": 0, "reserved": 0})
            more = STOCK.update().where(STOCK.c.sku == came.sku).values(on_hand=STOCK.c.on_hand + came.quantity)
            await db.execute(more)
        row = (await db.execute(RECEIPTS.select().where(RECEIPTS.c.id == id))).one()
    if (row.sku, row.quantity) != (came.sku, came.quantity):
        raise NotAReceipt(f"receipt {id!r} was another one", "give each its own number")
    return Receipt(id, row.sku, row.quantity)


@operation("All there is, by its numbers.", grants=["operator"])
async def stock(request: Request, query: Listing) -> Page[Stock]:
    wanted = STOCK.select().where(STOCK.c.sku > query.after).order_by(STOCK.c.sku).limit(query.limit + 1)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return Page.of([Stock(row.sku, row.on_hand, row.reserved) for row in rows], query, lambda one: one.sku)


ROUTES = [
    Route("/", stock, methods=["GET"]),
    Route("/{sku}", left, methods=["GET"]),
    Route("/receipts/{receipt}", receive, methods=["PUT"]),
]
