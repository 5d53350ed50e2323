"""What inventory answers over HTTP: below ``/ecommerce/inventory``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ecommerce import limits
from ecommerce.events import Sku
from ecommerce.inventory.tables import RECEIPTS, STOCK
from ecommerce.rows import insert_new
from gateway.sql import reading, transaction
from gateway.web import NotAvailable, Refused, answer, body, principal


class Received(msgspec.Struct, forbid_unknown_fields=True):
    sku: Sku
    quantity: Annotated[int, msgspec.Meta(ge=1, le=limits.RECEIPT_MOST)]


class NotAReceipt(Refused):
    """A receipt that cannot be one."""

    code, status = "bad_receipt", 422


async def left(request: Request) -> Response:
    """How much of an article can still be ordered."""
    async with reading(request) as db:
        row = (await db.execute(STOCK.select().where(STOCK.c.sku == request.path_params["sku"]))).first()
    if row is None:
        raise NotAvailable("there never was any of it", "look at the catalog")
    return answer({"sku": row.sku, "available": row.on_hand - row.reserved})


async def receive(request: Request) -> Response:
    """By operators: goods came in. The receipt's number is in the path, so that the same one again adds nothing."""
    principal(request, "operator")
    came, id = await body(request, Received), request.path_params["receipt"]
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
    return answer({"receipt": id, "sku": row.sku, "quantity": row.quantity})


async def stock(request: Request) -> Response:
    """By operators: a page of all there is; ``?after=`` the last of the page before."""
    principal(request, "operator")
    wanted = STOCK.select().where(STOCK.c.sku > request.query_params.get("after", "")).order_by(STOCK.c.sku)
    async with reading(request) as db:
        rows = (await db.execute(wanted.limit(limits.PAGE_MOST))).all()
    found = [{"sku": row.sku, "on_hand": row.on_hand, "reserved": row.reserved} for row in rows]
    return answer({"stock": found, "next": found[-1]["sku"] if len(found) == limits.PAGE_MOST else None})


ROUTES = [
    Route("/", stock, methods=["GET"]),
    Route("/{sku}", left, methods=["GET"]),
    Route("/receipts/{receipt}", receive, methods=["PUT"]),
]
