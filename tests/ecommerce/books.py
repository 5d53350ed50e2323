"""The checker: what must be true of a shop's books once its orders have ended, and which of it is not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from sqlalchemy import Table

from ecommerce.acquirer.tables import CHARGES
from ecommerce.inventory.tables import PARTS, RECEIPTS, RESERVATIONS, STOCK
from ecommerce.orders.tables import ORDERS
from ecommerce.payments.tables import PAYMENTS
from ecommerce.shipping.tables import PARCELS
from gateway.testing import Gateway

Rows = list[dict[str, Any]]
TABLES = {
    "orders": ("orders", ORDERS),
    "stock": ("inventory", STOCK),
    "reservations": ("inventory", RESERVATIONS),
    "parts": ("inventory", PARTS),
    "receipts": ("inventory", RECEIPTS),
    "payments": ("payments", PAYMENTS),
    "charges": ("acquirer", CHARGES),
    "parcels": ("shipping", PARCELS),
}


class Books(msgspec.Struct):
    """Rows of every service, as they stand."""

    orders: Rows
    stock: Rows
    reservations: Rows
    parts: Rows
    receipts: Rows
    payments: Rows
    charges: Rows
    parcels: Rows


async def read(gateway: Gateway) -> Books:
    return Books(
        **{name: await _rows(gateway, f"ecommerce.{service}", table) for name, (service, table) in TABLES.items()}
    )


async def _rows(gateway: Gateway, service: str, table: Table) -> Rows:
    async with gateway.database(service) as db:
        return [dict(row._mapping) for row in (await db.execute(table.select())).all()]


def faults(books: Books, *, ended: bool = True) -> list[str]:
    """Say what is wrong. ``ended``: every order should have come to its end."""
    return [*_stock(books), *_orders(books, ended)]


def _stock(books: Books) -> list[str]:
    status = {row["order"]: row["status"] for row in books.reservations}
    held, gone, came = Counter[str](), Counter[str](), Counter[str]()
    for part in books.parts:
        counter = {"held": held, "committed": gone}.get(status.get(part["order"], ""))
        if counter is not None:
            counter[part["sku"]] += part["quantity"]
    for receipt in books.receipts:
        came[receipt["sku"]] += receipt["quantity"]
    found = []
    for row in books.stock:
        sku, reserved, on_hand = row["sku"], row["reserved"], row["on_hand"]
        if not 0 <= reserved <= on_hand:
            found.append(f"{sku}: oversold: {reserved} of {on_hand} reserved")
        if reserved != held[sku]:
            found.append(f"{sku}: {reserved} reserved, but live reservations hold {held[sku]}")
        if on_hand != came[sku] - gone[sku]:
            found.append(f"{sku}: stock is not conserved: {on_hand} on hand, {came[sku]} came and {gone[sku]} went")
    return found


def _orders(books: Books, ended: bool) -> list[str]:
    reservations = {row["order"]: row["status"] for row in books.reservations}
    charges = {row["order"]: row["status"] for row in books.charges}
    parcels = {row["order"]: row["status"] for row in books.parcels}
    amounts = {row["order"]: row["amount"] for row in books.charges}
    found = []
    for row in books.orders:
        id, status = row["id"], row["status"]
        charge, kept = charges.get(id, "none"), reservations.get(id, "none")
        if charge == "captured" and status not in ("confirmed", "completed"):
            found.append(f"{id}: money was captured for an order that is {status}")
        if charge in ("approved", "captured") and amounts[id] != row["total"]:
            found.append(f"{id}: {amounts[id]} charged for {row['total']}")
        if row["ended"] is None:
            found += [f"{id}: has not ended, it is {status}"] * ended
        elif status == "completed":
            if (charge, kept, parcels.get(id)) != ("captured", "committed", "delivered"):
                found.append(f"{id}: completed, but charge {charge}, stock {kept}, parcel {parcels.get(id)}")
        elif charge in ("approved", "captured") or kept in ("held", "committed") or id in parcels:
            found.append(f"{id}: ended as {status}, but charge {charge}, stock {kept}, parcel {parcels.get(id)}")
    strangers = charges.keys() - {row["id"] for row in books.orders}
    return [*found, *(f"{order}: charged, and nobody ordered it" for order in sorted(strangers))]
