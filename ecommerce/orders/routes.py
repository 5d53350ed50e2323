"""What orders answers over HTTP: below ``/ecommerce/orders``."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ecommerce import limits
from ecommerce.events import Line, Quantity, Sku
from ecommerce.orders.checkout import Basket, checkout, tell, turn_back
from ecommerce.orders.rules import Price, Standing, Wanted, priced
from ecommerce.orders.tables import KEYS, ORDERS, PRICES
from ecommerce.rows import insert_new
from gateway import GatewayError
from gateway.sql import Transaction, reading, transaction
from gateway.web import NotAvailable, Principal, Refused, answer, body, principal


class Item(msgspec.Struct, forbid_unknown_fields=True):
    sku: Sku
    quantity: Quantity = 1


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    lines: Annotated[list[Item], msgspec.Meta(min_length=1, max_length=limits.LINES_MOST)]
    #: What the acquirer gave for a card.
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class NotAnOrder(Refused):
    """What cannot be bought like this."""

    code, status = "bad_order", 422


class KeyReused(Refused):
    """An idempotency key that came before, with another order."""

    code, status = "idempotency_key_reused", 422


class TooLate(GatewayError):
    """An order that goes on, or has ended."""

    code, status, whose = "conflict", 409, "caller"


async def place(request: Request) -> Response:
    """202 as soon as it is written down; nobody else is asked. The same key with the same order is the same order."""
    who, new = principal(request, "user"), await body(request, NewOrder)
    key = request.headers.get("idempotency-key", "")
    if not 0 < len(key) <= limits.KEY_MOST:
        raise Refused("an order needs an Idempotency-Key", f"send a new one of 1 to {limits.KEY_MOST} characters")
    asked, now = hashlib.sha256(await request.body()).hexdigest(), time.time_ns() // 1_000_000
    id = f"{now:011x}-{secrets.token_hex(8)}"
    async with transaction(request) as db:
        await _forget(db, now)
        # A second request with this key waits here until the first has its answer, and then reads it.
        row = {"user": who.name, "key": key, "asked": asked, "answer": b"", "at": now}
        here = (KEYS.c.user == who.name, KEYS.c.key == key)
        if not await insert_new(db, KEYS, row):
            known = (await db.execute(KEYS.select().where(*here))).one()
            if known.asked != asked:
                raise KeyReused("this Idempotency-Key came with another order", "use a new one for each order")
            said = bytes(known.answer)
        else:
            said = await _accept(db, id, who.name, new, now)
            await db.execute(KEYS.update().where(*here).values(answer=said))
    order = msgspec.json.decode(said)["order"]
    return answer(msgspec.Raw(said), 202, {"location": f"/ecommerce/orders/{order}"})


async def _accept(db: Transaction, id: str, user: str, new: NewOrder, now: int) -> bytes:
    skus = sorted({item.sku for item in new.lines})
    rows = (await db.execute(PRICES.select().where(PRICES.c.sku.in_(skus)))).all()
    prices = {row.sku: Price(row.price, row.currency, row.sold) for row in rows}
    found = priced([Wanted(item.sku, item.quantity) for item in new.lines], prices)
    if isinstance(found, str):
        raise NotAnOrder(f"the order cannot be taken: {found}", "look at the catalog")
    lines, total, currency = found
    start = Standing()
    row = {"id": id, "user": user, "lines": msgspec.json.encode(lines), "total": total, "currency": currency}
    row |= {"status": start.order, "payment": start.payment, "fulfilment": start.fulfilment}
    await db.execute(ORDERS.insert(), {**row, "reason": "", "detail": "", "placed": now, "changed": now})
    tell(db, id, user, "placed", start, lines, currency)
    await checkout.start(db, id, Basket(user, lines, total, currency, new.method))
    return msgspec.json.encode({"order": id, "status": start.order, "total": total, "currency": currency})


async def _forget(db: Transaction, now: int) -> None:
    old = KEYS.select().with_only_columns(KEYS.c.at).where(KEYS.c.at < now - limits.KEY_KEPT * 1000)
    await db.execute(KEYS.delete().where(KEYS.c.at.in_(old.limit(limits.PURGE_PAGE))))


async def orders(request: Request) -> Response:
    """A page of one's own orders, the newest first; ``?before=`` the last of the page before."""
    who, query = principal(request, "user", "operator"), request.query_params
    wanted = ORDERS.select().order_by(ORDERS.c.id.desc()).limit(limits.PAGE_MOST)
    user = query.get("user", "") if who.kind == "operator" else who.name
    if user or who.kind == "user":
        wanted = wanted.where(ORDERS.c.user == user)
    if before := query.get("before"):
        wanted = wanted.where(ORDERS.c.id < before)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return answer(
        {"orders": [_shown(row) for row in rows], "next": rows[-1].id if len(rows) == limits.PAGE_MOST else None}
    )


async def order(request: Request) -> Response:
    who = principal(request, "user", "operator")
    async with reading(request) as db:
        row = (await db.execute(ORDERS.select().where(ORDERS.c.id == request.path_params["order"]))).first()
    _check_owner(who, row)
    return answer(_shown(row))


async def cancel(request: Request) -> Response:
    """202: it turns back, and ends when all is undone. 409 once the goods are on their way out, or it has ended."""
    who, id = principal(request, "user", "operator"), request.path_params["order"]
    async with transaction(request) as db:
        row = (await db.execute(ORDERS.select().where(ORDERS.c.id == id))).first()
        _check_owner(who, row)
        if not await checkout.cancel(db, id):
            raise TooLate("the order cannot be cancelled any more", "wait for it, and send it back")
        await turn_back(db, id, "cancelled")
    return answer({"order": id}, 202)


def _check_owner(who: Principal, row: Any) -> None:
    # The same answer as where there is none: who asks does not learn whose orders there are.
    if row is None or (who.kind != "operator" and who.name != row.user):
        raise NotAvailable("there is no such order of yours", "look at your list")


def _shown(row: Any) -> dict[str, object]:
    names = ("status", "payment", "fulfilment", "detail", "total", "currency", "placed", "changed", "ended")
    lines = msgspec.json.decode(row.lines, type=tuple[Line, ...])
    return {"order": row.id, "lines": lines, **{name: getattr(row, name) for name in names}}


ROUTES = [
    Route("/", place, methods=["POST"]),
    Route("/", orders, methods=["GET"]),
    Route("/{order}", order, methods=["GET"]),
    Route("/{order}/cancel", cancel, methods=["POST"]),
]
